"""One form for manifests that mean the same: for hashing, for comparing, for the store.

Defaults are left out, quantities have their shortest exact spelling, keys are sorted. So neither a new field with a
default nor another spelling of a size changes a hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from joblet.manifest.model_base import ManifestModel
from joblet.manifest.models import CHECKED_BEFORE, JobManifest

TEXTS_KEPT = 1024
LONGEST_KEPT = 2048


class RecentTexts:
    """Texts of jobs that were asked for lately: a job on its way is asked about several times. Manifests never change.

    Of jobs alone: the texts of secrets are not to be kept.
    """

    def __init__(self, text_of: Callable[[JobManifest], str]) -> None:
        self._text_of = text_of
        self._known: dict[int, tuple[JobManifest, str]] = {}

    def of(self, manifest: JobManifest) -> str:
        known = self._known.get(id(manifest))
        if known is not None and known[0] is manifest:
            return known[1]
        text = self._text_of(manifest)
        if len(text) <= LONGEST_KEPT:
            if len(self._known) >= TEXTS_KEPT:
                self._known.clear()  # simpler than to know which one is the oldest, and as good
            self._known[id(manifest)] = manifest, text
        return text


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
    return _recent.of(manifest) if isinstance(manifest, JobManifest) else canonical_json(manifest)


def manifest_from_json(text: str) -> JobManifest:
    """A manifest from ``manifest_to_json``. Raises pydantic's ValidationError or ValueError if it is anything else.

    The rules across fields are not checked again: they take as long as all the rest, and held when it was written.
    """
    return JobManifest.model_validate(json.loads(text), context=CHECKED_BEFORE)


_recent = RecentTexts(canonical_json)
