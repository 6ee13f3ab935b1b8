"""Calls that commands on the host itself make to the daemon, over its Unix socket, as root."""

from __future__ import annotations

import socket
from contextlib import closing

import grpc

from joblet.api.channel import open_channel
from joblet.api.v1 import node_pb2, node_pb2_grpc, operation_pb2, operation_pb2_grpc
from joblet.config.client import NodeConfig
from joblet.errors import JobletError

ANSWER_SECONDS = 30.0


class CallFailed(JobletError):
    """The daemon did not do what it was asked for."""


def is_running(socket_path: str) -> bool:
    """Whether somebody answers there. Raises CallFailed if that cannot be told."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(ANSWER_SECONDS)
        try:
            probe.connect(socket_path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError as error:
            raise CallFailed(
                f"cannot be reached: {error.strerror}", where=socket_path, todo="run this as root"
            ) from error
    return True


def report_of_daemon(socket_path: str, since_seconds: int) -> operation_pb2.ReportResponse:
    """How the running daemon is doing. Raises CallFailed."""
    request = operation_pb2.ReportRequest(since_seconds=since_seconds)
    with closing(open_channel(NodeConfig("local", f"unix:{socket_path}"))) as channel:
        try:
            answer: operation_pb2.ReportResponse = operation_pb2_grpc.OperationServiceStub(channel).Report(
                request, timeout=ANSWER_SECONDS
            )
        except grpc.RpcError as error:
            raise CallFailed(f"does not report: {error.details()}", where="the daemon") from error
    return answer


def reload_daemon(socket_path: str) -> node_pb2.ReloadResponse:
    """Have the daemon read its configuration anew. Raises CallFailed with its reason if it refuses; nothing changes then."""
    request = node_pb2.ReloadRequest()
    with closing(open_channel(NodeConfig("local", f"unix:{socket_path}"))) as channel:
        try:
            answer: node_pb2.ReloadResponse = node_pb2_grpc.NodeServiceStub(channel).Reload(
                request, timeout=ANSWER_SECONDS
            )
        except grpc.RpcError as error:
            raise CallFailed(f"refused to reload: {error.details()}", where="the daemon") from error
    return answer
