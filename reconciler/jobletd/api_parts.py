"""The API put together: every service with what it answers from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from joblet.clock import SystemClock
from joblet.config.changes import Changes
from joblet.config.server import ServerConfig
from jobletd.blobs.store import BlobStore
from jobletd.certificate_watch import CertificateWatch
from jobletd.desired import DesiredState
from jobletd.executor import Executor
from jobletd.executor.local import LocalExecutor
from jobletd.executor.slurm_node.directories import NodeDirectories
from jobletd.executor.slurm_node.telling import KeptAttempts
from jobletd.headroom import Headroom
from jobletd.host_features import HostFeatures, Place
from jobletd.maintenance import Maintenance
from jobletd.monitoring.profiler import Profiler
from jobletd.reconciler import Reconciler
from jobletd.registry import Registry
from jobletd.services.access import AccessControl
from jobletd.services.files import FileService
from jobletd.services.jobs import JobService
from jobletd.services.monitor import MonitorService
from jobletd.services.node import NodeFacts, NodeService
from jobletd.services.operation import OperationService, TimedLevel
from jobletd.services.resources import ResourceService
from jobletd.services.server import ApiServer
from jobletd.services.slurm_node import SlurmNodeService
from jobletd.sources.fleet import Fleet
from jobletd.sources.git.controller import GitSources
from jobletd.state_facts import StateFacts
from jobletd.tls_front import Identity, TlsFront
from jobletd.workflows.controller import Workflows

Reload = Callable[[Identity], Changes]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiParts:
    """The parts of the daemon that a client may ask about, or change something in."""

    config: ServerConfig
    clock: SystemClock
    front: TlsFront
    certificates: CertificateWatch
    registry: Registry
    desired: DesiredState
    reconciler: Reconciler
    executor: Executor
    local: LocalExecutor
    blobs: BlobStore
    git: GitSources
    fleet: Fleet
    workflows: Workflows
    headroom: Headroom
    profiler: Profiler
    facts_of_state: StateFacts


def api_server(
    parts: ApiParts, access: AccessControl, *, reload: Reload, end: Callable[[], None], log_level: Callable[[], str]
) -> ApiServer:
    """end: ends the daemon. log_level: as the configuration has it now."""
    config, registry, executor = parts.config, parts.registry, parts.executor
    node = _node_service(parts, reload, end)
    return ApiServer(
        access,
        JobService(parts.desired, message_bytes=config.grpc.max_send_bytes),
        node,
        ResourceService(parts.desired, parts.git, parts.workflows),
        FileService(parts.blobs, parts.headroom.check),
        MonitorService(
            registry,
            parts.reconciler,
            executor,
            parts.profiler,
            ("/", config.state.directory, config.logs.directory),
        ),
        OperationService(
            registry,
            executor,
            parts.clock,
            state_directory=config.state.directory,
            node=node.node,
            connections=parts.front.connected,
            level=TimedLevel(log_level),
        ),
        config.socket_path,
        config.grpc,
        slurm_node=SlurmNodeService(KeptAttempts(NodeDirectories.of(config)), message_bytes=config.grpc.max_send_bytes),
    )


def _node_service(parts: ApiParts, reload: Reload, end: Callable[[], None]) -> NodeService:
    config = parts.config
    facts = NodeFacts(
        boot_id=parts.local.boot_id,
        started_ns=parts.clock.wall_ns(),
        cgroup_mode=parts.local.cgroup_mode,
        max_concurrent_jobs=config.joblet.max_concurrent_jobs,
        max_concurrent_per_source=config.joblet.max_concurrent_per_source,
    )
    here = Place(config.state.directory, config.server.address, config.server.port, config.socket_path)
    return NodeService(
        facts,
        parts.registry,
        parts.reconciler,
        Maintenance(parts.registry, parts.reconciler, end),
        certificate_expires_ns=lambda: parts.certificates.expires_ns,
        probe=lambda: HostFeatures.probe(here),
        reload=reload,
        conditions=parts.facts_of_state.conditions,
        labels=lambda: parts.fleet.labels,
        executor=parts.executor,
    )
