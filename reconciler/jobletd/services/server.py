"""The gRPC server on its Unix socket, with all services behind the access check."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from joblet.api.v1 import job_pb2, job_pb2_grpc, node_pb2, node_pb2_grpc
from jobletd.services.access import AccessControl, check_complete
from jobletd.services.jobs import JobService
from jobletd.services.node import NodeService

MESSAGE_BYTES = 16 << 20
DESCRIPTORS = (job_pb2.DESCRIPTOR, node_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR)


def make_server(access: AccessControl, jobs: JobService, node: NodeService, socket_path: str) -> grpc.aio.Server:
    """A server that is ready to start. socket_path lies in a directory that only root can enter."""
    server = grpc.aio.server(
        interceptors=[access],
        options=[
            ("grpc.max_receive_message_length", MESSAGE_BYTES),
            ("grpc.max_send_message_length", MESSAGE_BYTES),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.so_reuseport", 0),
        ],
    )
    job_pb2_grpc.add_JobServiceServicer_to_server(jobs, server)
    node_pb2_grpc.add_NodeServiceServicer_to_server(node, server)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    names = [service.full_name for file in DESCRIPTORS for service in file.services_by_name.values()]
    reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)
    check_complete(methods())
    server.add_insecure_port(f"unix:{socket_path}")
    return server


def methods() -> list[str]:
    """Every method that is served, as gRPC names it."""
    found = [
        f"/{service.full_name}/{method.name}"
        for file in DESCRIPTORS
        for service in file.services_by_name.values()
        for method in service.methods
    ]
    return [*found, f"/{reflection.SERVICE_NAME}/ServerReflectionInfo"]
