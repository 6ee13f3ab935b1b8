"""The controller of secrets: one is ready when its values can be opened on this host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from joblet.manifest import ResourceManifest, SecretManifest
from jobletd.model import ResourceView
from jobletd.secrets.vault import Vault


class SecretController:
    """See ``jobletd.resources.Controller``."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def check(
        self, current: ResourceManifest | None, desired: ResourceManifest, others: Iterable[ResourceManifest]
    ) -> None:
        """Its own model has looked at everything."""

    async def realize(self, view: ResourceView) -> None:
        """Raises SecretKeyError, SecretDamaged, OSError."""
        self._vault.open(view)

    async def remove(self, view: ResourceView) -> None:
        """It is nowhere but in the store."""

    async def status(self, view: ResourceView) -> Mapping[str, str]:
        """Keys and sizes."""
        assert isinstance(view.manifest, SecretManifest)
        sealed = view.manifest.spec.sealed
        return {"keys": ", ".join(f"{key} ({value.size} bytes)" for key, value in sealed.items())}
