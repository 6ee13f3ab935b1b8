"""What runs jobs on this host and, if the configuration names a cluster, on its nodes; and what gives them their surroundings."""

from __future__ import annotations

from dataclasses import dataclass

from joblet.clock import Clock
from joblet.config.server import ServerConfig
from jobletd.configured import local_settings_of, network_settings_of
from jobletd.executor import Executor
from jobletd.executor.engines import executor_of, volumes_of
from jobletd.executor.local import LocalExecutor
from jobletd.executor.local.networking.controller import NetworkController
from jobletd.executor.local.networking.host_networks import HostNetworks
from jobletd.executor.local.networking.provider import NetworkProvider
from jobletd.executor.local.volumes import Volumes
from jobletd.headroom import MemoryBound
from jobletd.lifetime import Lifetime
from jobletd.policy import Policy
from jobletd.resources import Controller
from jobletd.upkeep.calls import Calls
from jobletd.upkeep.provider import UpkeepProvider


@dataclass(frozen=True, slots=True)
class HostParts:
    """local: what runs on this host; executor: all that the configuration names, as one. controllers: of what is declared, by
    kind."""

    networks: HostNetworks
    volumes: Volumes
    upkeep: UpkeepProvider
    local: LocalExecutor
    executor: Executor
    controllers: dict[str, Controller]

    @classmethod
    def of(cls, config: ServerConfig, policy: Policy, clock: Clock, calls: Calls) -> HostParts:
        """Nothing is made on the host by that. calls: what jobs may ask the daemon for."""
        networks = HostNetworks(network_settings_of(config))
        volumes = Volumes(config.state.directory, config.run.directory)
        upkeep = UpkeepProvider(f"{config.run.directory}/upkeep", calls)
        local = LocalExecutor.on_this_host(
            local_settings_of(config, policy),
            cgroup_base=config.cgroup.base_dir,
            clock=clock,
            providers=(volumes, NetworkProvider(networks), upkeep),
        )
        controllers: dict[str, Controller] = {
            "Network": NetworkController(networks),
            "Volume": volumes_of(config, volumes),
        }
        return cls(networks, volumes, upkeep, local, executor_of(config, local, policy, clock), controllers)

    async def start(self, life: Lifetime) -> None:
        """Take over what an earlier daemon left. Raises JobletError, OSError."""
        await self.networks.start()
        life.push_async_callback(self.networks.close)
        life.background("networks", self.networks.guard())
        await self.executor.start()
        life.push_async_callback(self.executor.close)


def memory_bound() -> MemoryBound | None:
    """Of the daemon itself."""
    bound = LocalExecutor.own_memory()
    return None if bound is None else MemoryBound(bound.used_bytes, bound.limit_bytes, bound.where)
