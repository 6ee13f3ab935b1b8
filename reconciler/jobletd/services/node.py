"""NodeService: what the host is and can do."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import psutil
import structlog

import joblet
from joblet.api.v1 import node_pb2, node_pb2_grpc
from joblet.config.changes import Changes
from jobletd import model
from jobletd.executor import EngineNode, Executor, ExecutorUnavailable, Standing
from jobletd.feature import Feature
from jobletd.host_features import HostFeatures
from jobletd.maintenance import Maintenance
from jobletd.reconciler import Reconciler
from jobletd.registry import Registry
from jobletd.services.access import caller
from jobletd.services.convert import condition, timestamp
from jobletd.services.jobs import note
from jobletd.services.requests import InvalidRequest
from jobletd.services.status_codes import answered
from jobletd.tls_front import Identity

Context = grpc.aio.ServicerContext[Any, Any]
LONGEST_REASON = 200
log = structlog.get_logger("node")


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What does not change while the daemon runs."""

    boot_id: str
    started_ns: int
    cgroup_mode: str
    max_concurrent_jobs: int
    max_concurrent_per_source: int = 0


class NodeService(node_pb2_grpc.NodeServiceServicer):
    """See schemas/joblet/v1/node.proto."""

    def __init__(
        self,
        facts: NodeFacts,
        registry: Registry,
        reconciler: Reconciler,
        maintenance: Maintenance,
        *,
        certificate_expires_ns: Callable[[], int],
        probe: Callable[[], HostFeatures],
        reload: Callable[[Identity], Changes],
        conditions: Callable[[], list[model.Condition]] = list,
        labels: Callable[[], Mapping[str, str]] = dict,
        executor: Executor | None = None,
    ) -> None:
        """probe: what the host can do; asked in a thread, once, when somebody wants to know. reload: puts the configuration
        as it is now into force, for whoever asks for it. conditions: lasting facts. labels: of this host."""
        self._facts = facts
        self._registry = registry
        self._reconciler = reconciler
        self._maintenance = maintenance
        self._certificate_expires_ns = certificate_expires_ns
        self._probe = probe
        self._conditions = conditions
        self._labels = labels
        self._executor = executor
        self._reload = reload
        self._probing = asyncio.Lock()
        self._features: list[node_pb2.Feature] | None = None

    async def GetNode(self, request: node_pb2.GetNodeRequest, context: Context) -> node_pb2.Node:
        async with answered(context):
            nodes = await self._engine_nodes() if request.engine_nodes else ()
            return self.node(await self._host_features(), nodes)
        raise AssertionError("unreachable")

    async def _engine_nodes(self) -> Sequence[EngineNode]:
        """Those that can be told just now; why others cannot, their executor's state says."""
        if self._executor is None:
            return ()
        try:
            return await self._executor.nodes()
        except ExecutorUnavailable as error:
            log.warning("the nodes of an engine are not known", error=str(error))
            return ()

    def node(self, features: Sequence[node_pb2.Feature] = (), nodes: Sequence[EngineNode] = ()) -> node_pb2.Node:
        memory = psutil.virtual_memory()
        return node_pb2.Node(
            hostname=socket.gethostname(),
            version=joblet.__version__,
            kernel=platform.release(),
            architecture=platform.machine(),
            boot_id=self._facts.boot_id,
            started=timestamp(self._facts.started_ns),
            cpus=os.cpu_count() or 1,
            memory_bytes=memory.total,
            memory_available_bytes=memory.available,
            cgroup_mode=self._facts.cgroup_mode,
            features=features,
            max_concurrent_jobs=self._facts.max_concurrent_jobs,
            running_jobs=self._reconciler.running,
            queued_jobs=len(self._registry.waiting),
            certificate_expires=timestamp(self._certificate_expires_ns()),
            conditions=map(condition, self._conditions()),
            cordon=cordon_state(self._registry.cordon),
            max_concurrent_per_source=self._facts.max_concurrent_per_source,
            labels=self._labels(),
            executors=[executor_state(one) for one in (self._executor.standing() if self._executor else ())],
            engine_nodes=map(engine_node, nodes),
        )

    async def Cordon(self, request: node_pb2.CordonRequest, context: Context) -> node_pb2.CordonResponse:
        async with answered(context):
            await self._maintenance.cordon(caller.get().name, reason_of(request))
            note("cordon", reason=request.reason)
            return node_pb2.CordonResponse()
        raise AssertionError("unreachable")

    async def Uncordon(self, request: node_pb2.UncordonRequest, context: Context) -> node_pb2.UncordonResponse:
        async with answered(context):
            changed = await self._maintenance.uncordon(caller.get().name)
            if changed:
                note("uncordon")
            return node_pb2.UncordonResponse(changed=changed)
        raise AssertionError("unreachable")

    async def Drain(self, request: node_pb2.DrainRequest, context: Context) -> AsyncIterator[node_pb2.DrainProgress]:
        async with answered(context):
            reason = reason_of(request)
            note("drain", reason=reason, stay=request.stay)
            async for progress in self._maintenance.drain(caller.get().name, reason, stay=request.stay):
                yield node_pb2.DrainProgress(
                    running=progress.running,
                    queued=progress.queued,
                    jobs=progress.jobs,
                    stopping_services=progress.stopping_services,
                    done=progress.done,
                )

    async def Reload(
        self, request: node_pb2.ReloadRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> node_pb2.ReloadResponse:
        async with answered(context):
            changes = self._reload(caller.get())
            return node_pb2.ReloadResponse(at_once=changes.at_once, restart=changes.restart)
        raise AssertionError("unreachable")

    async def _host_features(self) -> list[node_pb2.Feature]:
        async with self._probing:
            if self._features is None:
                host = await asyncio.to_thread(self._probe)
                self._features = [
                    node_pb2.Feature(name=one.name, available=one.available, detail=explained(one))
                    for one in host.features
                ]
            return self._features


def executor_state(one: Standing) -> node_pb2.ExecutorState:
    return node_pb2.ExecutorState(
        name=one.name, available=one.available, reason=one.why, pending=one.pending, running=one.running
    )


def engine_node(one: EngineNode) -> node_pb2.EngineNode:
    return node_pb2.EngineNode(
        engine=one.engine,
        name=one.name,
        state=one.state,
        reason=one.reason,
        partitions=one.partitions,
        cpus=one.cpus,
        cpus_used=one.cpus_used,
        load=one.load,
        memory_bytes=one.memory_bytes,
        memory_used_bytes=one.memory_used_bytes,
    )


def reason_of(request: node_pb2.CordonRequest | node_pb2.DrainRequest) -> str:
    """Raises InvalidRequest: it is shown beside every job that waits."""
    reason = " ".join(request.reason.split())
    if len(reason) > LONGEST_REASON:
        raise InvalidRequest("reason", f"has {len(reason)} characters", todo=f"at most {LONGEST_REASON} are kept")
    return reason


def cordon_state(cordon: model.Cordon | None) -> node_pb2.CordonState | None:
    if cordon is None:
        return None
    return node_pb2.CordonState(since=timestamp(cordon.since_ns), by=cordon.by, reason=cordon.reason)


def explained(feature: Feature) -> str:
    """What was found; if it is missing, also what that costs and the way out."""
    said = (feature.detail,) if feature.available else (feature.detail, feature.cost, feature.mend)
    return "; ".join(part for part in said if part)
