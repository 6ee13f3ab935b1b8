"""A collector of OpenTelemetry: the published service of OTLP over gRPC, keeping what it is sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from tests.timing import PATIENCE

T = TypeVar("T")


@dataclass(frozen=True)
class Received:
    """One span, its ids in hexadecimal. fault: of its status, None if it is no error."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    state: str
    kind: int
    began_ns: int
    ended_ns: int
    attributes: Mapping[str, Any]
    fault: str | None
    resource: Mapping[str, Any]


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """What was received so far."""

    def __init__(self) -> None:
        self.port = 0
        self.endpoint = ""
        self._spans: list[Received] = []
        self._more = threading.Condition()

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802  named by the proto
        with self._more:
            self._spans.extend(_spans_of(request))
            self._more.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self, trace_id: str) -> list[Received]:
        with self._more:
            return [span for span in self._spans if span.trace_id == trace_id]

    def wait(self, wanted: Callable[[list[Received]], T], *, within: float = 20) -> T:
        """What it makes of all spans, once that is true."""
        deadline = time.monotonic() + within * PATIENCE
        with self._more:
            while True:
                if answer := wanted(list(self._spans)):
                    return answer
                left = deadline - time.monotonic()
                assert left > 0, "\n".join(f"{span.name} {span.attributes}" for span in self._spans) or "no span came"
                self._more.wait(left)


@contextmanager
def collector(credentials: grpc.ServerCredentials | None = None, *, port: int = 0) -> Iterator[Collector]:
    """On a port of its own. credentials: with TLS."""
    found = Collector()
    server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    cast(Any, trace_service_pb2_grpc).add_TraceServiceServicer_to_server(found, server)
    address = f"127.0.0.1:{port}"
    found.port = (
        server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
    )
    found.endpoint = f"http{'' if credentials is None else 's'}://127.0.0.1:{found.port}"
    server.start()
    try:
        yield found
    finally:
        server.stop(0).wait()


def _spans_of(request: Any) -> Iterator[Received]:
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Received(
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    state=span.trace_state,
                    kind=span.kind,
                    began_ns=span.start_time_unix_nano,
                    ended_ns=span.end_time_unix_nano,
                    attributes=_attributes(span.attributes),
                    fault=span.status.message if span.status.code == span.status.STATUS_CODE_ERROR else None,
                    resource=_attributes(resource.resource.attributes),
                )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
