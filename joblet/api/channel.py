"""A channel to one daemon: TLS with a client certificate, or the Unix socket on the host itself."""

from __future__ import annotations

from urllib.parse import quote

import grpc

from joblet.config.client import NodeConfig

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),  # the daemon's configuration bounds both
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.enable_http_proxy", 0),
)
_SOON_AGAIN = ("grpc.max_reconnect_backoff_ms", 5_000)


def open_channel(node: NodeConfig) -> grpc.Channel:
    """A channel to the node; it connects with the first call."""
    if node.address.startswith("unix:"):
        path = quote(node.address.removeprefix("unix:"))  # gRPC reads a path as a URI
        return grpc.insecure_channel(f"unix:{path}", options=_OPTIONS)
    return grpc.secure_channel(node.address, _credentials(node), options=_OPTIONS)


def open_async_channel(node: NodeConfig) -> grpc.aio.Channel:
    """The same for an event loop, by TLS alone; it is soon there again after the node was away."""
    return grpc.aio.secure_channel(node.address, _credentials(node), options=(*_OPTIONS, _SOON_AGAIN))


def _credentials(node: NodeConfig) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(node.ca.encode(), node.key.encode(), node.cert.encode())
