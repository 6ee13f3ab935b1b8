"""The sections about this host as one of many: its labels, the repositories that it follows, who may say that they changed."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Self

from pydantic import WithJsonSchema, model_validator

from joblet.config.section import Reload, Section, key
from joblet.config.values import TYPE, AbsolutePath
from joblet.manifest.fields import LabelKey, LabelValue, Name
from joblet.manifest.git_source import GitSourceSpec

DEFAULT_PORT = 9478
SHORTEST_SECRET = 16
AT_ONCE = Reload.AT_ONCE

Labels = Annotated[dict[LabelKey, LabelValue], WithJsonSchema({"type": "object", TYPE: "labels: `{role: web}`"})]
Sources = Annotated[dict[Name, GitSourceSpec], WithJsonSchema({"type": "object", TYPE: "GitSources' specs by name"})]


class NodeSection(Section):
    """This host among others."""

    labels: Labels = key(
        {}, "labels", "What `nodeSelector` of a GitSource goes by, and `rnx nodes` shows.", reload=AT_ONCE
    )


class GitopsSection(Section):
    """Repositories that are followed without anybody applying a manifest."""

    sources: Sources = key(
        {},
        "sources",
        "As `spec` of a GitSource, by name; one that is taken out goes with all it has declared.",
        reload=AT_ONCE,
    )


class WebhookSection(Section):
    """An endpoint that tells of a push: `POST /gitsources/NAME`, in the forms of GitHub, GitLab and Gitea."""

    enabled: bool = key(False, "enabled", "Whether there is one.", strict=True)
    address: str = key("127.0.0.1", "address", "Address to listen on; beyond loopback TLS is needed.", min_length=1)
    port: int = key(
        DEFAULT_PORT,
        "port",
        "TCP port; 0: one that is free, written to `webhook-port` in `run.directory`.",
        ge=0,
        le=65535,
    )
    secret: str = key("", "secret", "What the hoster signs with, or sends (GitLab).", secret=True, reload=AT_ONCE)
    secret_path: AbsolutePath | None = key(
        None, "secretPath", "File of it, readable by its owner alone, in place of `secret`.", reload=AT_ONCE
    )
    cert_path: AbsolutePath | None = key(None, "certPath", "File of a certificate that the hoster trusts: TLS then.")
    key_path: AbsolutePath | None = key(None, "keyPath", "File of its private key, readable by its owner alone.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.cert_path is None) != (self.key_path is None):
            raise ValueError("certPath and keyPath belong together: give both or none")
        if not self.enabled:
            return self
        if bool(self.secret) == (self.secret_path is not None):
            raise ValueError("needs a secret: give one of secret and secretPath")
        if self.secret and len(self.secret) < SHORTEST_SECRET:
            raise ValueError(f"secret is shorter than {SHORTEST_SECRET} characters (openssl rand -hex 32)")
        if self.cert_path is None and not _is_loopback(self.address):
            raise ValueError("without certPath and keyPath it listens on loopback alone, for a proxy on this host")
        return self


def _is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
