"""grpc.health.v1, with the method that the library leaves to us: it would log a defect of ours for each call of it."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Health(health.aio.HealthServicer):  # type: ignore[misc]  # grpc_health has no types
    """The status of each service; the empty name is the daemon as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self._statuses = {"": SERVING}

    async def set(self, service: str, status: int) -> None:
        await super().set(service, status)
        self._statuses[service] = status

    async def enter_graceful_shutdown(self) -> None:
        await super().enter_graceful_shutdown()
        self._statuses = dict.fromkeys(self._statuses, NOT_SERVING)

    async def List(
        self, request: health_pb2.HealthListRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthListResponse:
        found = {name: health_pb2.HealthCheckResponse(status=status) for name, status in self._statuses.items()}
        return health_pb2.HealthListResponse(statuses=found)
