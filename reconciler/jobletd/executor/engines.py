"""Which executors the configuration names: the one place that makes them, and that says what a job may ask of each."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from joblet.clock import Clock
from joblet.config.server import ServerConfig
from joblet.manifest import Engine, JobManifest
from joblet.sandbox.exit_record import boot_id
from jobletd.executor import Executor
from jobletd.executor.local import LocalExecutor
from jobletd.executor.local.volumes import Volumes
from jobletd.executor.routing import RoutingExecutor, engine_of
from jobletd.executor.slurm import SlurmExecutor, SlurmSettings
from jobletd.executor.slurm.commands import CommandClient, slurm_environment
from jobletd.executor.slurm.rest import RestClient
from jobletd.executor.slurm.support import slurm_problems
from jobletd.executor.slurm.volume_images import VolumeImages
from jobletd.executor.volume_routing import RoutedVolumes
from jobletd.policy import Policy, Problem
from jobletd.resources import Controller


def executor_of(config: ServerConfig, local: LocalExecutor, policy: Policy, clock: Clock) -> Executor:
    """What runs the jobs of this daemon: the local executor alone, unless a cluster is configured too."""
    if not config.slurm.enabled:
        return local
    settings = slurm_settings_of(config, policy)
    client = RestClient(settings) if settings.rest_url else CommandClient(settings)
    return RoutingExecutor(local, SlurmExecutor(settings, client, clock), Engine(config.executor))


def volumes_of(config: ServerConfig, local: Volumes) -> Controller:
    """What makes the volumes that are declared: those of this host, and of a cluster that is configured too."""
    if not config.slurm.enabled or config.slurm.shared_directory is None:
        return local
    shared = config.slurm.shared_directory
    images = VolumeImages(shared, socket.gethostname(), boot_id(), config.slurm.command_timeout_seconds)
    return RoutedVolumes(local, images, Engine(config.executor))


def take_policy(executor: Executor, policy: Policy) -> None:
    """A reload has changed what manifests may ask for."""
    if isinstance(executor, RoutingExecutor):
        executor.take_policy(policy)


def slurm_settings_of(config: ServerConfig, policy: Policy) -> SlurmSettings:
    slurm = config.slurm
    return SlurmSettings(
        directory=f"{config.state.directory}/slurm",
        shared_directory=slurm.shared_directory,
        contents_directory=f"{config.state.directory}/blobs/sha256",
        node_clients=slurm.node_clients or "",
        node_port=slurm.node_port,
        launcher=slurm.launcher,
        environment=slurm_environment(slurm.config_file),
        partition=slurm.partition or "",
        account=slurm.account or "",
        qos=slurm.qos or "",
        constraint=slurm.constraint or "",
        memory_headroom_bytes=slurm.memory_headroom_bytes,
        command_seconds=slurm.command_timeout_seconds,
        shortest_poll_seconds=slurm.shortest_poll_seconds,
        longest_poll_seconds=slurm.longest_poll_seconds,
        grace_seconds=slurm.record_grace_seconds,
        stop_seconds=config.joblet.cleanup_timeout_seconds,
        rest_url=slurm.rest_url,
        rest_user=slurm.rest_user,
        rest_token_path=slurm.rest_token_path or "",
        policy=policy,
    )


class EngineRules:
    """What a job may not ask of the engine that runs it. default: the engine of jobs that name none."""

    def __init__(self, config: ServerConfig) -> None:
        self._default = Engine(config.executor)
        self._has_slurm = config.slurm.enabled
        self._shares_a_directory = config.slurm.shared_directory is not None

    def __call__(self, manifest: JobManifest) -> Iterator[Problem]:
        spec = manifest.spec
        engine = engine_of(manifest, self._default)
        if engine is Engine.SLURM and not self._has_slurm:
            todo = "leave it out, or set slurm.enabled: true in the daemon's configuration"
            yield Problem("spec.executor", "no Slurm cluster is configured on this host", todo)
        elif engine is Engine.SLURM:
            yield from slurm_problems(manifest, shares_a_directory=self._shares_a_directory)
        elif spec.slurm is not None:
            todo = "set spec.executor: slurm, or leave spec.slurm out"
            yield Problem("spec.slurm", "this host itself runs this job", todo)
