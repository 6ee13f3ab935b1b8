"""The sections about how the daemon is watched by others."""

from __future__ import annotations

from typing import Self
from urllib.parse import urlsplit

from pydantic import field_validator, model_validator

from joblet.config.section import Section, key
from joblet.config.values import AbsolutePath

DEFAULT_PORT = 9477


class MetricsSection(Section):
    """Figures for Prometheus, at `/metrics`. They name jobs and show nothing of their manifests, output or secrets."""

    enabled: bool = key(False, "enabled", "Whether they are served.", strict=True)
    address: str = key("127.0.0.1", "address", "Address to serve them on.", min_length=1)
    port: int = key(
        DEFAULT_PORT,
        "port",
        "TCP port; 0: one that is free, written to `metrics-port` in `run.directory`.",
        ge=0,
        le=65535,
    )
    cert_path: AbsolutePath | None = key(None, "certPath", "File of a certificate: they are served with TLS 1.3 then.")
    key_path: AbsolutePath | None = key(None, "keyPath", "File of its private key, `0600`.")
    client_ca_path: AbsolutePath | None = key(
        None, "clientCaPath", "File of an authority: who scrapes must show a certificate of it."
    )
    max_jobs: int = key(
        200,
        "maxJobs",
        "Running jobs that have figures of their own; the others count in the sums alone.",
        ge=0,
        le=10_000,
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.cert_path is None) != (self.key_path is None):
            raise ValueError("certPath and keyPath belong together: give both or none")
        if self.client_ca_path is not None and self.cert_path is None:
            raise ValueError("clientCaPath needs TLS: give certPath and keyPath too")
        return self


class TracingSection(Section):
    """Spans of runs for OpenTelemetry, by OTLP over gRPC. They name jobs and show nothing of manifests, output or secrets."""

    enabled: bool = key(
        False, "enabled", "Whether they are recorded and sent; needs `joblet[tracing]` installed.", strict=True
    )
    endpoint: str = key(
        "http://127.0.0.1:4317", "endpoint", "Where a collector takes them; `https://` for TLS.", min_length=1
    )
    ca_path: AbsolutePath | None = key(
        None, "caPath", "File of the authority of the collector's certificate. Default: the system's authorities."
    )
    cert_path: AbsolutePath | None = key(None, "certPath", "File of a certificate to show to the collector.")
    key_path: AbsolutePath | None = key(None, "keyPath", "File of its private key, `0600`.")
    ratio: float = key(
        1.0,
        "ratio",
        "Which part of the traces that begin here is recorded; of a client's, its own sampled flag decides.",
        ge=0,
        le=1,
    )

    @field_validator("endpoint")
    @classmethod
    def _is_url(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            whole = f"{parts.scheme}://{parts.netloc}" if parts.hostname and parts.port else ""
        except ValueError:  # a port that is none
            whole = ""
        if value.rstrip("/") != whole or not whole.startswith(("http:", "https:")) or "@" in whole:
            raise ValueError(f"{value!r} is no endpoint (use http://HOST:PORT or https://HOST:PORT)")
        return whole

    @property
    def uses_tls(self) -> bool:
        return self.endpoint.startswith("https:")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.cert_path is None) != (self.key_path is None):
            raise ValueError("certPath and keyPath belong together: give both or none")
        if not self.uses_tls and (self.cert_path is not None or self.ca_path is not None):
            raise ValueError("caPath, certPath and keyPath need TLS: endpoint has to begin with https://")
        return self
