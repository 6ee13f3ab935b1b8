"""The gRPC server on its Unix socket, with all services behind the access check."""

from __future__ import annotations

import os
from urllib.parse import quote

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from joblet.api.v1 import (
    file_pb2,
    file_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
    monitor_pb2,
    monitor_pb2_grpc,
    node_pb2,
    node_pb2_grpc,
    operation_pb2,
    operation_pb2_grpc,
    resource_pb2,
    resource_pb2_grpc,
    slurm_node_pb2,
    slurm_node_pb2_grpc,
)
from joblet.config.daemon_sections import GrpcSection
from jobletd.services.access import AccessControl, check_complete
from jobletd.services.health import Health

DESCRIPTORS = (
    job_pb2.DESCRIPTOR,
    node_pb2.DESCRIPTOR,
    resource_pb2.DESCRIPTOR,
    file_pb2.DESCRIPTOR,
    monitor_pb2.DESCRIPTOR,
    operation_pb2.DESCRIPTOR,
    slurm_node_pb2.DESCRIPTOR,
    health_pb2.DESCRIPTOR,
)
GRACE_SECONDS = 1.0
DEFAULT_BOUNDS = GrpcSection()


class ApiServer:
    """All services of one daemon."""

    def __init__(
        self,
        access: AccessControl,
        jobs: job_pb2_grpc.JobServiceServicer,
        node: node_pb2_grpc.NodeServiceServicer,
        resources: resource_pb2_grpc.ResourceServiceServicer,
        files: file_pb2_grpc.FileServiceServicer,
        monitor: monitor_pb2_grpc.MonitorServiceServicer,
        operation: operation_pb2_grpc.OperationServiceServicer,
        socket_path: str,
        bounds: GrpcSection = DEFAULT_BOUNDS,
        *,
        slurm_node: slurm_node_pb2_grpc.SlurmNodeServiceServicer | None = None,
    ) -> None:
        """socket_path: in a directory that only root can enter."""
        self._socket_path = socket_path
        self._server = grpc.aio.server(interceptors=[access], options=options(bounds))
        self._health = Health()
        job_pb2_grpc.add_JobServiceServicer_to_server(jobs, self._server)
        node_pb2_grpc.add_NodeServiceServicer_to_server(node, self._server)
        resource_pb2_grpc.add_ResourceServiceServicer_to_server(resources, self._server)
        file_pb2_grpc.add_FileServiceServicer_to_server(files, self._server)
        monitor_pb2_grpc.add_MonitorServiceServicer_to_server(monitor, self._server)
        operation_pb2_grpc.add_OperationServiceServicer_to_server(operation, self._server)
        slurm_node = (
            slurm_node or slurm_node_pb2_grpc.SlurmNodeServiceServicer()
        )  # which says that it is not implemented
        slurm_node_pb2_grpc.add_SlurmNodeServiceServicer_to_server(slurm_node, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = [service.full_name for file in DESCRIPTORS for service in file.services_by_name.values()]
        reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], self._server)
        check_complete(methods())

    async def start(self) -> None:
        """Listen, and say that we serve. Raises OSError."""
        try:
            self._server.add_insecure_port(f"unix:{quote(self._socket_path)}")  # gRPC reads a path as a URI
        except RuntimeError as error:
            raise OSError(0, "gRPC cannot listen there", self._socket_path) from error
        await self._server.start()
        os.chmod(self._socket_path, 0o600)
        for file in DESCRIPTORS[:-1]:
            for service in file.services_by_name.values():
                await self._health.set(service.full_name, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self) -> None:
        """Say that we do not serve any more, take no new calls, and give those that stand a moment."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(GRACE_SECONDS)


def options(bounds: GrpcSection) -> list[tuple[str, int]]:
    """Of gRPC's server."""
    return [
        ("grpc.max_receive_message_length", bounds.max_recv_bytes),
        ("grpc.max_send_message_length", bounds.max_send_bytes),
        ("grpc.max_metadata_size", bounds.max_header_bytes),
        ("grpc.absolute_max_metadata_size", bounds.max_header_bytes),
        # Clients may ask whether we are there; and a client that has vanished gives its place back.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_time_ms", int(bounds.keep_alive_seconds * 1000)),
        ("grpc.keepalive_timeout_ms", int(bounds.keep_alive_timeout_seconds * 1000)),
        (
            "grpc.http2.ping_timeout_ms",
            int(bounds.keep_alive_timeout_seconds * 1000),
        ),  # a minute otherwise, whatever the former says
        ("grpc.so_reuseport", 0),
    ]


def methods() -> list[str]:
    """Every method that is served, as gRPC names it."""
    found = [
        f"/{service.full_name}/{method.name}"
        for file in DESCRIPTORS
        for service in file.services_by_name.values()
        for method in service.methods
    ]
    return [*found, f"/{reflection.SERVICE_NAME}/ServerReflectionInfo"]
