"""The kinds of manifest besides Job: what jobs use, by name. One model each; MODELS knows them all.

Beside jobs, which go by their name alone, everything is named ``kind/name`` where kinds mix: ``volume/reports``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import Field

from joblet.manifest import fields as f
from joblet.manifest.models import JobManifest, ManifestModel, Metadata


class VolumeSpec(ManifestModel):
    """Storage that outlives the jobs that use it."""

    size_bytes: f.VolumeSize = Field(alias="size", description="How much it holds; more is refused with ENOSPC.")
    type: f.VolumeTypeChoice = Field(
        default=f.VolumeType.FILESYSTEM,
        description="filesystem: on disk, lasts until it is deleted; memory: in memory, gone after a restart of the host.",
    )


class VolumeManifest(ManifestModel):
    """One YAML document that declares one volume."""

    api_version: f.ApiVersion = Field(alias="apiVersion", description="The version of this form: joblet/v1.")
    kind: f.VolumeKind = Field(description="What is declared: Volume.")
    metadata: Metadata = Field(description=str(Metadata.__doc__))
    spec: VolumeSpec = Field(description=str(VolumeSpec.__doc__))


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


ResourceManifest = VolumeManifest | NetworkManifest
Manifest = JobManifest | ResourceManifest
MODELS: Mapping[str, type[JobManifest] | type[ResourceManifest]] = {
    "Job": JobManifest,
    "Volume": VolumeManifest,
    "Network": NetworkManifest,
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
    if (network := job.spec.isolation.network) not in frozenset(f.Network):
        yield key("Network", network)


def jobs_of(manifests: Iterable[Manifest]) -> tuple[JobManifest, ...]:
    """The jobs among them."""
    return tuple(manifest for manifest in manifests if isinstance(manifest, JobManifest))


def model_of(value: object) -> type[JobManifest] | type[ResourceManifest]:
    """The model that a raw document asks for by its ``kind``; Job if it names none that exists, whose check says so."""
    kind = value.get("kind") if isinstance(value, dict) else None
    return MODELS.get(kind, JobManifest) if isinstance(kind, str) else JobManifest


def resource_from_json(text: str) -> ResourceManifest:
    """A manifest from ``manifest_to_json``. Raises pydantic's ValidationError or ValueError if it is anything else."""
    value: Any = json.loads(text)
    manifest = model_of(value).model_validate(value)
    if isinstance(manifest, JobManifest):
        raise ValueError("a job is no resource")
    return manifest
