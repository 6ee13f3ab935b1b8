"""The HTTP endpoint of the metrics: off unless ``metrics.enabled``, on loopback unless told otherwise, with TLS if that is set.

prometheus-client's application is served in threads of its own; what they tell is collected in the event loop, where nothing
changes meanwhile.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import structlog
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, make_wsgi_app
from prometheus_client.core import Metric
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.registry import Collector

from joblet.config.private_file import check_private
from joblet.config.watching_sections import MetricsSection
from joblet.errors import JobletError
from jobletd.metrics.instruments import REGISTRY

COLLECTED_WITHIN_SECONDS = 10.0
CLIENT_SECONDS = 10.0  # for each step of a client
log = structlog.get_logger("metrics")


class MetricsError(JobletError):
    """The endpoint cannot be opened."""


class InEventLoop(Collector):
    """Facts that are read at each scrape, in the event loop that owns them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, facts: Callable[[], Coroutine[Any, Any, list[Metric]]]) -> None:
        self._loop = loop
        self._facts = facts

    def describe(self) -> Iterable[Metric]:
        """None: else being registered would be a first scrape, in the very thread that would have to answer it."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Raises TimeoutError for an event loop that does not answer: a scrape that fails is seen, old figures are not."""
        told = asyncio.run_coroutine_threadsafe(self._facts(), self._loop)
        try:
            return told.result(COLLECTED_WITHIN_SECONDS)
        except concurrent.futures.TimeoutError:
            told.cancel()
            raise


class _Server(ThreadingWSGIServer):
    """Each connection in a thread of its own, its handshake too: one that says nothing keeps nobody waiting."""

    tls: ssl.SSLContext | None = None

    def finish_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]
        request.settimeout(CLIENT_SECONDS)
        try:
            if self.tls is not None:
                request = self.tls.wrap_socket(request, server_side=True)
        except OSError as error:
            log.warning("scrape refused", peer=client_address[0], error=str(error))
            return
        with request:
            super().finish_request(request, client_address)

    def handle_error(self, request: object, client_address: tuple[str, int]) -> None:  # noqa: ARG002
        log.warning("scrape broken off", peer=client_address[0], error=str(sys.exception()))


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Not a line for each scrape."""


class MetricsEndpoint:
    """One for the daemon. ``start`` and ``stop`` are called in the event loop."""

    def __init__(self, settings: MetricsSection, facts: Callable[[], Coroutine[Any, Any, list[Metric]]]) -> None:
        self._settings = settings
        self._facts = facts
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> int:
        """Listen. Returns the port. Raises MetricsError, ConfigError for a key that others can read."""
        settings = self._settings
        registry = CollectorRegistry()
        for collector in (REGISTRY, InEventLoop(asyncio.get_running_loop(), self._facts)):
            registry.register(collector)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        try:
            tls = tls_context(settings)
            family = socket.getaddrinfo(settings.address, settings.port, type=socket.SOCK_STREAM)[0][0]
            kind = type("_Server", (_Server,), {"address_family": family, "tls": tls})
            self._server = make_server(
                settings.address, settings.port, make_wsgi_app(registry), kind, handler_class=_Silent
            )
        except OSError as error:  # as ssl.SSLError is
            raise MetricsError(
                f"cannot serve metrics: {error.strerror or error}",
                where=f"{settings.address}:{settings.port}",
                todo="choose another metrics.port, mend metrics.certPath and keyPath, or set metrics.enabled: false",
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()
        port = int(self._server.server_port)
        log.info("metrics are served", address=f"{settings.address}:{port}", tls=tls is not None)
        return port

    async def stop(self) -> None:
        """Serve nobody any more. A scrape that is under way is answered first: its facts come from this loop."""
        if self._server is None or self._thread is None:
            return
        await asyncio.to_thread(self._server.shutdown)
        await asyncio.to_thread(self._thread.join)
        self._server.server_close()
        self._server = self._thread = None


def tls_context(settings: MetricsSection) -> ssl.SSLContext | None:
    """TLS 1.3 as it is configured; None for none. Raises OSError, ConfigError for a key that others can read."""
    if settings.cert_path is None or settings.key_path is None:
        return None
    check_private(settings.key_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(settings.cert_path, settings.key_path)
    if settings.client_ca_path is not None:
        context.load_verify_locations(settings.client_ca_path)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
