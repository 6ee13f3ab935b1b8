"""The section about how the daemon is watched by others."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

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
