"""The controller of volumes where there is a cluster: each lies where its manifest or the configuration says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from joblet.manifest import Engine, ResourceManifest, VolumeManifest, VolumeType
from jobletd.executor.local.volume_image import VolumeError
from jobletd.executor.local.volumes import Volumes
from jobletd.executor.slurm.volume_images import VolumeImages, described
from jobletd.model import ResourceView


class RoutedVolumes:
    """See ``jobletd.resources.Controller``."""

    def __init__(self, local: Volumes, shared: VolumeImages, default: Engine) -> None:
        self._local = local
        self._shared = shared
        self._default = default

    def _is_shared(self, manifest: ResourceManifest) -> bool:
        """What lay on this host before there was a cluster stays here, as long as its manifest does not say otherwise."""
        assert isinstance(manifest, VolumeManifest)
        if manifest.spec.executor is None and self._local.has(manifest.metadata.name):
            return False
        return (manifest.spec.executor or self._default) is Engine.SLURM

    def check(
        self, current: ResourceManifest | None, desired: ResourceManifest, others: Iterable[ResourceManifest]
    ) -> None:
        assert isinstance(desired, VolumeManifest)
        name = desired.metadata.name
        if self._is_shared(desired) and desired.spec.type is VolumeType.MEMORY:
            what = f"volume {name} would be in the memory of one node, and Slurm may choose another one each time"
            raise VolumeError(what, where="spec.type", todo="use type: filesystem, or executor: local")
        if current is not None and self._is_shared(current) is not self._is_shared(desired):
            what = f"volume {name} cannot move between this host and the cluster"
            raise VolumeError(what, where="spec.executor", todo="make another one, and copy what is in it")
        self._local.check(current, desired, others)

    async def realize(self, view: ResourceView) -> None:
        manifest = _volume(view)
        await (self._shared.realize(manifest) if self._is_shared(manifest) else self._local.realize(view))

    async def remove(self, view: ResourceView) -> None:
        manifest = _volume(view)
        shared = self._is_shared(manifest)
        await (self._shared.remove(manifest.metadata.name) if shared else self._local.remove(view))

    async def status(self, view: ResourceView) -> Mapping[str, str]:
        manifest = _volume(view)
        if not self._is_shared(manifest):
            return await self._local.status(view)
        return {**described(manifest), **await self._shared.status(manifest.metadata.name)}


def _volume(view: ResourceView) -> VolumeManifest:
    assert isinstance(view.manifest, VolumeManifest)
    return view.manifest
