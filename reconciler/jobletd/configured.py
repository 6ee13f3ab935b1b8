"""What the configuration says, in the words of the parts that are told: for the daemon, and for what runs without it."""

from __future__ import annotations

import os
from pathlib import Path

from joblet.config.server import ServerConfig
from jobletd.executor.local.networking.host_networks import NetworkSettings
from jobletd.executor.local.settings import LocalSettings
from jobletd.policy import Policy


def policy_of(config: ServerConfig) -> Policy:
    return Policy.of(
        config.isolation,
        validate_commands=config.joblet.validate_commands,
        webhooks=config.hooks.allowed_webhooks,
    )


def local_settings_of(config: ServerConfig, policy: Policy) -> LocalSettings:
    return LocalSettings(
        state_directory=config.state.directory,
        log_directory=config.logs.directory,
        run_directory=config.run.directory,
        id_base=config.isolation.id_base,
        id_slots=config.isolation.id_slots,
        policy=policy,
        default_disk_bytes=config.isolation.default_disk_bytes,
        memory_disk_bytes=config.isolation.memory_disk_bytes,
        cleanup_seconds=config.joblet.cleanup_timeout_seconds,
        cgroup_controllers=config.cgroup.enable_controllers,
        cgroup_empty_seconds=config.cgroup.cleanup_timeout_seconds,
        cgroup_view=bool(config.cgroup.namespace_mount),
    )


def network_settings_of(config: ServerConfig) -> NetworkSettings:
    ports = (port.partition("/") for port in config.network.allow_host_ports)
    return NetworkSettings(
        state_directory=os.path.realpath(config.state.directory),
        directory=Path(config.run.directory, "networks"),
        pool=config.network.pool,
        denied=tuple(map(str, config.network.deny)),
        host_ports=tuple(f"{protocol} . {port}" for port, _, protocol in ports),
    )
