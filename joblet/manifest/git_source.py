"""The kind GitSource: a repository whose manifests are desired state."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from joblet.manifest import fields as f
from joblet.manifest.choices import Drift
from joblet.manifest.model_base import ManifestModel
from joblet.manifest.models import Metadata


class GitSelection(ManifestModel):
    """Which commit counts; the default is the repository's own default branch. At most one of these."""

    branch: f.GitRef = Field(default=None, description="The newest commit of that branch.")
    tag: f.GitRef = Field(default=None, description="What that tag names.")
    commit: f.GitCommit = Field(default=None, description="That one, by its whole id.")
    semver: f.VersionRange = Field(
        default=None, description="The tag with the highest version in that range; tags are named 1.2.3 or v1.2.3."
    )

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        given = [name for name, value in self if value is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are given; at most one is allowed")
        return self


class GitSignature(ManifestModel):
    """Who must have signed the commit, or the tag if an annotated one was followed. One of them is enough."""

    ssh_signers: f.OptionalText = Field(
        default=None, alias="sshSigners", description="SSH keys, as lines of an allowed_signers file (ssh-keygen(1))."
    )
    gpg_keys: f.OptionalText = Field(
        default=None, alias="gpgKeys", description="OpenPGP public keys, as gpg --export --armor gives them."
    )

    @model_validator(mode="after")
    def _check_any(self) -> Self:
        if not (self.ssh_signers or "").strip() and not (self.gpg_keys or "").strip():
            raise ValueError("names nobody; give sshSigners or gpgKeys")
        return self


class GitPrune(ManifestModel):
    """What happens to what the repository no longer declares. ``prune: false`` is short for ``enabled: false``."""

    enabled: f.Flag = Field(default=True, description="false: it is left as it is.")
    max_delete_percent: f.Percent = Field(
        default=50,
        alias="maxDelete",
        description="A commit that removes a larger part of all at once, and more than one, waits for `rnx sync --allow-delete`.",
    )


def _prune(value: object) -> object:
    return {"enabled": value} if isinstance(value, bool) else value


class GitSourceSpec(ManifestModel):
    """A git repository, and how it is followed."""

    url: f.GitUrl = Field(description="Where it is: https, ssh, or a directory of this host (file).")
    ref: GitSelection = Field(default=GitSelection(), description=str(GitSelection.__doc__))
    path: f.TreePath = Field(default=".", description="The directory whose manifests count, and all below it.")
    interval_seconds: f.SourceInterval = Field(default=60.0, alias="interval", description="How often it is looked at.")
    timeout_seconds: f.SourceInterval = Field(
        default=60.0, alias="timeout", description="How long one look may take; then it has failed."
    )
    node_selector: dict[f.LabelKey, f.LabelValue] = Field(
        default={},
        alias="nodeSelector",
        description="Only hosts with all these labels (`node.labels` of their configuration) follow it.",
    )
    credentials: f.OptionalName = Field(
        default=None,
        description="A Secret with username and token, or ssh-key and known-hosts; ca.crt for an authority of one's own.",
    )
    signature: GitSignature | None = Field(default=None, description=str(GitSignature.__doc__))
    prune: Annotated[GitPrune, BeforeValidator(_prune), f.Shorthand("boolean")] = Field(
        default=GitPrune(), description=str(GitPrune.__doc__)
    )
    drift: f.DriftChoice = Field(
        default=Drift.CORRECT,
        description="Of a job that was stopped by hand: correct: it runs again; report: it is shown; ignore: neither.",
    )
    suspend: f.Flag = Field(default=False, description="true: nobody looks; what runs goes on.")


class GitSourceManifest(ManifestModel):
    """One YAML document that declares one repository to follow."""

    api_version: f.ApiVersion = Field(alias="apiVersion", description="The version of this form: joblet/v1.")
    kind: f.GitSourceKind = Field(description="What is declared: GitSource.")
    metadata: Metadata = Field(description=str(Metadata.__doc__))
    spec: GitSourceSpec = Field(description=str(GitSourceSpec.__doc__))
