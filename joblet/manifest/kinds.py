"""The kinds of manifest besides Job: what jobs use, by name. One model each; MODELS knows them all.

Beside jobs, which go by their name alone, everything is named ``kind/name`` where kinds mix: ``volume/reports``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from joblet.manifest import fields as f
from joblet.manifest.choices import Network, VolumeType
from joblet.manifest.git_source import GitSourceManifest
from joblet.manifest.model_base import ManifestModel
from joblet.manifest.models import JobManifest, Metadata
from joblet.manifest.secret_value import MAX_ALL_BYTES, MAX_VALUES, SecretValue
from joblet.manifest.workflow import WorkflowManifest


class VolumeSpec(ManifestModel):
    """Storage that outlives the jobs that use it."""

    size_bytes: f.VolumeSize = Field(alias="size", description="How much it holds; more is refused with ENOSPC.")
    type: f.VolumeTypeChoice = Field(
        default=VolumeType.FILESYSTEM,
        description="filesystem: on disk, lasts until it is deleted; memory: in memory, gone after a restart of the host.",
    )
    executor: f.OptionalEngine = Field(
        default=None,
        description="Whose jobs use it: local, those of this host; slurm, those of the cluster, one attempt at a time. Default: "
        "the configuration's executor.",
    )


class VolumeManifest(ManifestModel):
    """One YAML document that declares one volume."""

    api_version: f.ApiVersion = Field(alias="apiVersion", description="The version of this form: joblet/v1.")
    kind: f.VolumeKind = Field(description="What is declared: Volume.")
    metadata: Metadata = Field(description=str(Metadata.__doc__))
    spec: VolumeSpec = Field(description=str(VolumeSpec.__doc__))


class SecretSpec(ManifestModel):
    """Values that jobs get and nobody sees: encrypted on the host's disk, masked wherever they could be shown."""

    data: dict[f.SecretKey, f.SecretText] = Field(default={}, description="Values as text.")
    data_base64: dict[f.SecretKey, f.SecretBytes] = Field(
        default={}, alias="dataBase64", description="Values in base64, for what is no text."
    )
    sealed: dict[f.SecretKey, f.SealedText] = Field(
        default={},
        description="What is shown of values that the host has: size and keyed digest. Applied again, it keeps them.",
    )

    @property
    def values(self) -> dict[str, SecretValue]:
        """What was given, whatever its form."""
        return {**self.data, **self.data_base64}

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        keys = [*self.data, *self.data_base64, *self.sealed]
        if not keys:
            raise ValueError("holds no value; give one below data or dataBase64")
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise ValueError(f"the key {twice} stands in more than one of data, dataBase64 and sealed")
        if len(keys) > MAX_VALUES:
            raise ValueError(f"has {len(keys)} keys, at most {MAX_VALUES} are allowed")
        if sum(map(len, self.values.values())) > MAX_ALL_BYTES:
            raise ValueError(f"holds more than {MAX_ALL_BYTES} bytes in all")
        return self


class SecretManifest(ManifestModel):
    """One YAML document that declares one secret."""

    api_version: f.ApiVersion = Field(alias="apiVersion", description="The version of this form: joblet/v1.")
    kind: f.SecretKind = Field(description="What is declared: Secret.")
    metadata: Metadata = Field(description=str(Metadata.__doc__))
    spec: SecretSpec = Field(description=str(SecretSpec.__doc__))


class NetworkMetadata(Metadata):
    """What a network is called, and what is noted about it."""

    name: f.NetworkName = Field(description="The name, unique among all networks of the host: an RFC 1123 label.")


class NetworkSpec(ManifestModel):
    """A network whose jobs see each other by name."""

    cidr: f.Cidr = Field(
        description="Its addresses, IPv4. They may not overlap those of another network or of the host, nor change."
    )
    internal: f.Flag = Field(
        default=False, description="true: there is no way out of it; its jobs see each other alone."
    )


class NetworkManifest(ManifestModel):
    """One YAML document that declares one network."""

    api_version: f.ApiVersion = Field(alias="apiVersion", description="The version of this form: joblet/v1.")
    kind: f.NetworkKind = Field(description="What is declared: Network.")
    metadata: NetworkMetadata = Field(description=str(NetworkMetadata.__doc__))
    spec: NetworkSpec = Field(description=str(NetworkSpec.__doc__))


ResourceManifest = GitSourceManifest | NetworkManifest | SecretManifest | VolumeManifest | WorkflowManifest
Manifest = JobManifest | ResourceManifest
Model = (
    type[GitSourceManifest]
    | type[JobManifest]
    | type[NetworkManifest]
    | type[SecretManifest]
    | type[VolumeManifest]
    | type[WorkflowManifest]
)
MODELS: Mapping[str, Model] = {
    "GitSource": GitSourceManifest,
    "Job": JobManifest,
    "Network": NetworkManifest,
    "Secret": SecretManifest,
    "Volume": VolumeManifest,
    "Workflow": WorkflowManifest,
}
RESOURCE_KINDS = tuple(kind for kind in MODELS if kind != "Job")


def key_of(manifest: Manifest) -> str:
    """What it goes by where kinds mix: a job by its name, anything else as ``volume/reports``; no name has a slash."""
    return manifest.metadata.name if isinstance(manifest, JobManifest) else key(manifest.kind, manifest.metadata.name)


def key(kind: str, name: str) -> str:
    return f"{kind.lower()}/{name}"


def references(job: JobManifest) -> Iterator[str]:
    """The keys of all that a job uses."""
    yield from (key("Volume", volume.name) for volume in job.spec.volumes)
    yield from dict.fromkeys(key("Secret", secret.name) for secret in job.spec.secrets)
    if (network := job.spec.isolation.network) not in frozenset(Network):
        yield key("Network", network)


def jobs_of(manifests: Iterable[Manifest]) -> tuple[JobManifest, ...]:
    """The jobs among them."""
    return tuple(manifest for manifest in manifests if isinstance(manifest, JobManifest))


def model_of(value: object) -> Model:
    """The model that a raw document asks for by its ``kind``; Job if it names none that exists, whose check says so."""
    kind = value.get("kind") if isinstance(value, dict) else None
    return MODELS.get(kind, JobManifest) if isinstance(kind, str) else JobManifest


def may_hold_secrets(value: object) -> bool:
    """Whether what stands below ``spec`` of a raw document must not be shown: it is a Secret, or may be meant to be one."""
    kind = value.get("kind") if isinstance(value, dict) else None
    return kind is not None and (kind == "Secret" or not (isinstance(kind, str) and kind in MODELS))


def resource_from_json(text: str) -> ResourceManifest:
    """A manifest from ``manifest_to_json``. Raises pydantic's ValidationError or ValueError if it is anything else."""
    value: Any = json.loads(text)
    manifest = model_of(value).model_validate(value)
    if isinstance(manifest, JobManifest):
        raise ValueError("a job is no resource")
    return manifest
