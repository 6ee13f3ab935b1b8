"""Manifests: the v1 models, reading with positions, defaults, canonical form, comparison."""

from joblet.manifest.canonical import canonical_json, manifest_from_json, manifest_to_json, spec_hash
from joblet.manifest.comparison import Change, ChangeKind, Comparison, compare
from joblet.manifest.errors import ManifestError, ManifestErrors
from joblet.manifest.explanation import FieldHelp, UnknownField, explain
from joblet.manifest.fields import Enforcement, Network, Restart, Seccomp, VolumeType
from joblet.manifest.kinds import (
    MODELS,
    RESOURCE_KINDS,
    Manifest,
    NetworkManifest,
    NetworkSpec,
    ResourceManifest,
    SecretManifest,
    SecretSpec,
    VolumeManifest,
    VolumeSpec,
    jobs_of,
    key,
    key_of,
    references,
    resource_from_json,
)
from joblet.manifest.models import (
    FileSpec,
    History,
    IoLimits,
    Isolation,
    JobManifest,
    JobSpec,
    Limits,
    Metadata,
    NetworkLimits,
    Retry,
    SecretUse,
    Stop,
    VolumeMount,
)
from joblet.manifest.nearest import nearest
from joblet.manifest.reader import read_manifests
from joblet.manifest.schema import schema_of
from joblet.manifest.secret_value import SealedValue, SecretValue
from joblet.manifest.yaml_writer import to_yaml

__all__ = [
    "MODELS",
    "RESOURCE_KINDS",
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
    "Manifest",
    "ManifestError",
    "ManifestErrors",
    "Metadata",
    "Network",
    "NetworkLimits",
    "NetworkManifest",
    "NetworkSpec",
    "ResourceManifest",
    "Restart",
    "Retry",
    "SealedValue",
    "Seccomp",
    "SecretManifest",
    "SecretSpec",
    "SecretUse",
    "SecretValue",
    "Stop",
    "UnknownField",
    "VolumeManifest",
    "VolumeMount",
    "VolumeSpec",
    "VolumeType",
    "canonical_json",
    "compare",
    "explain",
    "jobs_of",
    "key",
    "key_of",
    "manifest_from_json",
    "manifest_to_json",
    "nearest",
    "read_manifests",
    "references",
    "resource_from_json",
    "schema_of",
    "spec_hash",
    "to_yaml",
]
