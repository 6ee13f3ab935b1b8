"""Spans to a collector, by OpenTelemetry's SDK and its OTLP exporter: the one module that imports them.

The SDK's batch processor sends from a thread of its own, out of a queue that is bounded: a collector that is slow or gone costs
spans, never jobs. That it takes none is one line of the log, and another one when it does again.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import grpc
import structlog
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace.span import TraceState

from joblet import __version__
from jobletd.metrics import instruments
from jobletd.tracing.sending import TracingError
from jobletd.tracing.span import Span

if TYPE_CHECKING:
    from joblet.config.watching_sections import TracingSection

EVERY_MS = 1000  # what a daemon that is killed has not sent is lost
SEND_SECONDS = 10.0
LAST_SECONDS = 3.0  # for what is left at the end
_OTLP_LOGGER = "opentelemetry.exporter.otlp.proto.grpc.exporter"
log = structlog.get_logger("tracing")


class Sender:
    """One for the daemon."""

    def __init__(
        self,
        settings: TracingSection,
        *,
        every_ms: float = EVERY_MS,
        send_seconds: float = SEND_SECONDS,
        last_seconds: float = LAST_SECONDS,
    ) -> None:
        """send_seconds: for one batch with all its tries. last_seconds: for all that is left at the end. Raises TracingError."""
        self._last_seconds = last_seconds
        self._exporter = _Told(_exporter(settings, send_seconds), settings.endpoint)
        self._ids = _GivenIds()
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,  # whether it is recorded was decided with the trace
            resource=Resource.create(
                {"service.name": "joblet", "service.version": __version__, "host.name": socket.gethostname()}
            ),
            shutdown_on_exit=False,
            id_generator=self._ids,
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter, schedule_delay_millis=every_ms))
        self._tracer = self._provider.get_tracer("joblet", __version__)
        log.info("spans are sent", endpoint=settings.endpoint, ratio=settings.ratio)

    def send(self, span: Span) -> None:
        """Soon. Called in one thread."""
        self._ids.trace_id, self._ids.span_id = int(span.context.trace_id, 16), int(span.context.span_id, 16)
        above = None
        if span.above:
            flags, state = TraceFlags(TraceFlags.SAMPLED), TraceState.from_header([span.context.state])
            parent = SpanContext(self._ids.trace_id, int(span.above, 16), True, flags, state)
            above = set_span_in_context(NonRecordingSpan(parent))
        sent = self._tracer.start_span(
            span.name,
            above,
            SpanKind.SERVER if span.served else SpanKind.INTERNAL,
            span.attributes,
            start_time=span.began_ns,
        )
        if span.fault:
            sent.set_status(Status(StatusCode.ERROR, span.fault))
        sent.end(span.ended_ns)

    def close(self) -> None:
        """What is left is sent, as far as that takes no longer than last_seconds."""
        late = threading.Timer(self._last_seconds, self._exporter.shutdown)
        late.daemon = True
        late.start()
        self._provider.shutdown()
        late.cancel()


class _GivenIds(IdGenerator):
    """Ids that were given away before their spans: to jobs, and to the database."""

    trace_id = 0
    span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


class _Told(SpanExporter):
    """Says once that spans do not arrive, and once that they do again."""

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self._exporter = exporter
        self._endpoint = endpoint
        self._fails = False
        self._ended = threading.Event()
        self._said = _LastWords()
        logging.getLogger(_OTLP_LOGGER).addFilter(self._said)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        failed = result is not SpanExportResult.SUCCESS
        instruments.trace_spans.labels("failed" if failed else "sent").inc(len(spans))
        if failed and not self._fails:
            log.warning("spans do not arrive", endpoint=self._endpoint, error=self._said.text)
        elif self._fails and not failed:
            log.info("spans arrive again", endpoint=self._endpoint)
        self._fails = failed
        return result

    def shutdown(self) -> None:
        if not self._ended.is_set():
            self._ended.set()
            self._exporter.shutdown()
            logging.getLogger(_OTLP_LOGGER).removeFilter(self._said)


class _LastWords(logging.Filter):
    """Keeps what the exporter says instead of logging each try of it."""

    text = ""

    def filter(self, record: logging.LogRecord) -> bool:
        self.text = record.getMessage()
        return False


def _exporter(settings: TracingSection, seconds: float) -> SpanExporter:
    credentials = _credentials(settings) if settings.uses_tls else None
    return OTLPSpanExporter(settings.endpoint, insecure=not settings.uses_tls, credentials=credentials, timeout=seconds)


def _credentials(settings: TracingSection) -> grpc.ChannelCredentials:
    """Raises TracingError."""
    texts: list[bytes | None] = []
    for path in (settings.ca_path, settings.key_path, settings.cert_path):
        try:
            texts.append(_content(path))
        except OSError as error:
            raise TracingError(f"cannot be read: {error.strerror}", where=f"tracing: {path}") from error
    return grpc.ssl_channel_credentials(*texts)


def _content(path: str | None) -> bytes | None:
    if path is None:
        return None
    with open(path, "rb") as file:
        return file.read()
