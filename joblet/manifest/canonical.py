"""One form for manifests that mean the same: for hashing, for comparing, for the store.

Defaults are left out, quantities have their shortest exact spelling, keys are sorted. So neither a new field with a
default nor another spelling of a size changes a hash.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from joblet.manifest.base import ManifestModel
from joblet.manifest.models import JobManifest


def plain(model: ManifestModel) -> dict[str, Any]:
    """The manifest as mappings, lists and scalars in the models' order, without defaults."""
    data: dict[str, Any] = model.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return data


def canonical_json(model: ManifestModel) -> str:
    """The canonical form: sorted keys, no spaces, no defaults, ASCII alone."""
    return json.dumps(plain(model), sort_keys=True, separators=(",", ":"))


def spec_hash(spec: ManifestModel) -> str:
    """SHA-256 of the canonical form, in hex."""
    return hashlib.sha256(canonical_json(spec).encode()).hexdigest()


def manifest_to_json(manifest: ManifestModel) -> str:
    """The text that the store keeps; ``manifest_from_json`` reads it back to an equal manifest."""
    return canonical_json(manifest)


def manifest_from_json(text: str) -> JobManifest:
    """A manifest from ``manifest_to_json``. Raises pydantic's ValidationError or ValueError if it is anything else."""
    return JobManifest.model_validate(json.loads(text))
