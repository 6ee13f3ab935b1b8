"""Gives an attempt its network: the namespace as a descriptor, and what stands in its /etc."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from joblet.cgroup import readable_size
from joblet.manifest import Network, NetworkManifest
from jobletd.executor import AttemptRequest
from jobletd.executor.local.networking.controller import lan_of_manifest
from jobletd.executor.local.networking.host_networks import HostNetworks
from jobletd.executor.local.networking.lan import Lan
from jobletd.model import AttemptId, LimitStatus

if TYPE_CHECKING:
    from jobletd.executor.local.networking.links import Bandwidth


class NetworkProvider:
    """See ``jobletd.executor.local.provider.Provider``. A job on ``none`` or ``host`` costs nothing here."""

    def __init__(self, networks: HostNetworks) -> None:
        self._networks = networks

    async def attach(
        self, request: AttemptRequest, first_id: int, descriptors: list[int], limits: list[LimitStatus]
    ) -> dict[str, Any]:
        if request.manifest.spec.isolation.network in (Network.NONE, Network.HOST):
            return {}
        from jobletd.executor.local.networking.links import Bandwidth

        lan = self._lan(request)
        asked = request.manifest.spec.limits.network
        bandwidth = Bandwidth(asked.in_bytes, asked.out_bytes) if asked else Bandwidth()
        name = host_name(request.manifest.metadata.name)
        namespace, held = await self._networks.connect(lan, request.attempt_id, name, bandwidth)
        descriptors.append(namespace)
        limits += _readings(bandwidth, held)
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


def host_name(name: str) -> str:
    """What others on the network call it: its job's name; an index of an array (``<job>.<run>.<index>``) ``<job>.<index>``."""
    job, _, rest = name.partition(".")
    return f"{job}.{rest.rpartition('.')[2]}" if rest else job


def _readings(asked: Bandwidth, held: Bandwidth) -> Iterator[LimitStatus]:
    """Each limit that was asked for, beside what the kernel holds it to."""
    pairs = (("network.in", asked.in_bytes, held.in_bytes), ("network.out", asked.out_bytes, held.out_bytes))
    for name, wanted, there in pairs:
        if wanted is not None:
            effective = "max" if there is None else readable_size(there)
            yield LimitStatus(name, readable_size(wanted), effective, there == wanted)
