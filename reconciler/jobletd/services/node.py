"""NodeService: what the host is and can do."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import grpc
import psutil

import joblet
from joblet.api.v1 import node_pb2, node_pb2_grpc
from jobletd.reconciler import Reconciler
from jobletd.registry import Registry
from jobletd.services.convert import timestamp
from jobletd.services.status_codes import answered

LIMITS = {"cpu": "cpu", "cpus": "cpuset", "memory": "memory", "pids": "pids", "io": "io"}


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What does not change while the daemon runs. features: (name, available, detail)."""

    boot_id: str
    started_ns: int
    cgroup_mode: str
    features: tuple[tuple[str, bool, str], ...]
    max_concurrent_jobs: int


def limit_features(controllers: Iterable[str]) -> tuple[tuple[str, bool, str], ...]:
    """Which of ``spec.limits`` can be enforced, by the kinds of resources that the executor can limit."""
    able = frozenset(controllers)
    return tuple(
        (
            f"limits.{limit}",
            kind in able,
            "" if kind in able else f"no {kind} controller: a job that asks for it is refused unless best-effort",
        )
        for limit, kind in LIMITS.items()
    )


class NodeService(node_pb2_grpc.NodeServiceServicer):
    """See schemas/joblet/v1/node.proto."""

    def __init__(
        self,
        facts: NodeFacts,
        registry: Registry,
        reconciler: Reconciler,
        *,
        certificate_expires_ns: Callable[[], int],
    ) -> None:
        self._facts = facts
        self._registry = registry
        self._reconciler = reconciler
        self._certificate_expires_ns = certificate_expires_ns

    async def GetNode(
        self, request: node_pb2.GetNodeRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> node_pb2.Node:
        async with answered(context):
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
                features=[
                    node_pb2.Feature(name=name, available=available, detail=detail)
                    for name, available, detail in self._facts.features
                ],
                max_concurrent_jobs=self._facts.max_concurrent_jobs,
                running_jobs=self._reconciler.running,
                queued_jobs=len(self._registry.waiting),
                certificate_expires=timestamp(self._certificate_expires_ns()),
            )
        raise AssertionError("unreachable")
