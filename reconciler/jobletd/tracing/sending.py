"""Where spans go, as the configuration says: checked before anything depends on it, and loaded only where it is wanted."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from joblet.clock import Clock
from joblet.config.private_file import check_private
from joblet.config.watching_sections import TracingSection
from joblet.errors import JobletError

if TYPE_CHECKING:
    from jobletd.tracing.tracing import Tracing

NEEDED = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.grpc")


class TracingError(JobletError):
    """Spans are wanted and cannot be sent."""


@dataclass(frozen=True, slots=True)
class OpenTracing:
    """close: sends what is left, within seconds; not for the event loop's thread."""

    tracing: Tracing
    close: Callable[[], None]


def check_tracing(settings: TracingSection) -> None:
    """Raises TracingError if what it takes is not there, ConfigError for a key that others can read."""
    if not settings.enabled:
        return
    if not all(map(_is_there, NEEDED)):
        raise TracingError(
            "needs OpenTelemetry, which is not installed",
            where="tracing.enabled",
            todo="pip install 'joblet[tracing]', or set tracing.enabled: false",
        )
    for name, path in (("caPath", settings.ca_path), ("certPath", settings.cert_path), ("keyPath", settings.key_path)):
        if path is not None:
            _check_readable(name, path)
    if settings.key_path is not None:
        check_private(settings.key_path)


def _check_readable(name: str, path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise TracingError(
            f"cannot be read: {error.strerror}", where=f"tracing.{name}: {path}", todo="name a file that is there"
        ) from error


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor is what it is in
        return False


def open_tracing(settings: TracingSection, clock: Clock) -> OpenTracing | None:
    """None where it is off. Raises TracingError, ConfigError."""
    check_tracing(settings)
    if not settings.enabled:
        return None
    from jobletd.tracing.otlp import Sender
    from jobletd.tracing.tracing import Tracing

    sender = Sender(settings)
    return OpenTracing(Tracing(sender.send, clock, settings.ratio), sender.close)
