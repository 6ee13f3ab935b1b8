"""Networks that manifests declare: whether they may be, and that they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network

from joblet.manifest import NetworkManifest, ResourceManifest, key_of
from jobletd.errors import WrongState
from jobletd.executor.local.networking.host_networks import HostNetworks
from jobletd.executor.local.networking.lan import Lan, Mode, lan_of
from jobletd.executor.local.networking.naming import Naming
from jobletd.model import ResourceView

CIDR = "spec.cidr"


class NetworkController:
    """See ``jobletd.resources.Controller``."""

    def __init__(self, networks: HostNetworks) -> None:
        self._networks = networks

    def check(
        self, current: ResourceManifest | None, desired: ResourceManifest, others: Iterable[ResourceManifest]
    ) -> None:
        manifest = _network(desired)
        where = f"{key_of(manifest)}: {CIDR}"
        cidr = IPv4Network(manifest.spec.cidr)
        if current is not None:
            if _network(current).spec.cidr != manifest.spec.cidr:
                what = f"the addresses of a network cannot change ({_network(current).spec.cidr})"
                raise WrongState(what, where=where, todo="delete it and declare it anew, or declare another")
            return
        for other in map(_network, others):
            if cidr.overlaps(IPv4Network(other.spec.cidr)):
                what = f"{cidr} overlaps {other.spec.cidr} of {key_of(other)}"
                raise WrongState(what, where=where, todo="choose addresses that are free")
        if cidr.overlaps(self._networks.settings.pool):
            what = f"{cidr} overlaps {self._networks.settings.pool}, from which bridge and isolated take addresses"
            raise WrongState(what, where=where, todo="choose others, or change network.pool in the configuration")
        if taken := self._networks.overlapping_route(cidr):
            what = f"{cidr} overlaps {taken[0]}, which the host reaches by {taken[1]}"
            raise WrongState(what, where=where, todo="choose addresses that are free")

    async def realize(self, view: ResourceView) -> None:
        await self._networks.ensure(self._lan(view))

    async def remove(self, view: ResourceView) -> None:
        await self._networks.drop(self._lan(view))

    async def status(self, view: ResourceView) -> Mapping[str, str]:
        lan = self._lan(view)
        return {"cidr": str(lan.cidr), "jobs": str(self._networks.jobs_on(lan))}

    def _lan(self, view: ResourceView) -> Lan:
        return lan_of_manifest(self._networks.naming, _network(view.manifest))


def lan_of_manifest(naming: Naming, manifest: NetworkManifest) -> Lan:
    mode = Mode.INTERNAL if manifest.spec.internal else Mode.SHARED
    return lan_of(naming, key_of(manifest), IPv4Network(manifest.spec.cidr), mode)


def _network(manifest: ResourceManifest) -> NetworkManifest:
    if not isinstance(manifest, NetworkManifest):
        raise TypeError(f"{key_of(manifest)} is no network")
    return manifest
