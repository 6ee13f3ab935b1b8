"""Gives an attempt its network: the namespace as a descriptor, and what stands in its /etc."""

from __future__ import annotations

from typing import Any

from joblet.manifest import Network, NetworkManifest
from jobletd.executor import AttemptRequest
from jobletd.executor.local.networking.controller import lan_of_manifest
from jobletd.executor.local.networking.host_networks import HostNetworks
from jobletd.executor.local.networking.lan import Lan
from jobletd.model import AttemptId


class NetworkProvider:
    """See ``jobletd.executor.local.provider.Provider``. A job on ``none`` or ``host`` costs nothing here."""

    def __init__(self, networks: HostNetworks) -> None:
        self._networks = networks

    async def attach(self, request: AttemptRequest, first_id: int, descriptors: list[int]) -> dict[str, Any]:
        if request.manifest.spec.isolation.network in (Network.NONE, Network.HOST):
            return {}
        from jobletd.executor.local.networking.links import Bandwidth

        lan = self._lan(request)
        asked = request.manifest.spec.limits.network
        bandwidth = Bandwidth(asked.in_bytes, asked.out_bytes) if asked else Bandwidth()
        name = request.manifest.metadata.name
        descriptors.append(await self._networks.connect(lan, request.attempt_id, name, bandwidth))
        return {"network": "given", "network_fd": len(descriptors) - 1, "etc_bound": self._networks.etc(lan)}

    async def detach(self, attempt_id: AttemptId) -> None:
        self._networks.disconnect(attempt_id)

    async def keep_only(self, live: frozenset[AttemptId]) -> None:
        await self._networks.keep_only(frozenset(live))

    def _lan(self, request: AttemptRequest) -> Lan:
        name = request.manifest.spec.isolation.network
        if name in (Network.BRIDGE, Network.ISOLATED):
            return self._networks.lan_named(name)
        manifest = next(
            one for one in request.resources if isinstance(one, NetworkManifest) and one.metadata.name == name
        )
        return lan_of_manifest(self._networks.naming, manifest)
