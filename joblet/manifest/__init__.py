"""Manifests: the v1 models, reading with positions, defaults, canonical form, comparison."""

from joblet.manifest.canonical import canonical_json, manifest_from_json, manifest_to_json, spec_hash
from joblet.manifest.comparison import Change, ChangeKind, Comparison, compare
from joblet.manifest.errors import ManifestError, ManifestErrors
from joblet.manifest.explanation import FieldHelp, UnknownField, explain
from joblet.manifest.fields import Enforcement, Network, Restart, Seccomp
from joblet.manifest.models import (
    FileSpec,
    History,
    IoLimits,
    Isolation,
    JobManifest,
    JobSpec,
    Limits,
    Metadata,
    Retry,
    Stop,
)
from joblet.manifest.nearest import nearest
from joblet.manifest.reader import read_manifests
from joblet.manifest.schema import job_schema
from joblet.manifest.yaml_writer import to_yaml

__all__ = [
    "Change",
    "ChangeKind",
    "Comparison",
    "Enforcement",
    "FieldHelp",
    "FileSpec",
    "History",
    "IoLimits",
    "Isolation",
    "JobManifest",
    "JobSpec",
    "Limits",
    "ManifestError",
    "ManifestErrors",
    "Metadata",
    "Network",
    "Restart",
    "Retry",
    "Seccomp",
    "Stop",
    "UnknownField",
    "canonical_json",
    "compare",
    "explain",
    "job_schema",
    "manifest_from_json",
    "manifest_to_json",
    "nearest",
    "read_manifests",
    "spec_hash",
    "to_yaml",
]
