"""What an apply means for one resource: from what is to what shall be, without touching anything."""

from __future__ import annotations

import uuid
from dataclasses import replace

from joblet.manifest import ResourceManifest, key_of
from jobletd.model import Action, ApplyResult, JobName, ResourceView, Source
from jobletd.registry import EventDraft, SaveResource


def plan_resource(
    current: ResourceView | None, manifest: ResourceManifest, source: Source, now_ns: int
) -> tuple[ApplyResult, SaveResource | None]:
    """What is answered, and what is saved (None: nothing). Ownership was checked before."""
    if current is None or current.deleting:
        view = ResourceView(
            uid=current.uid if current else str(uuid.uuid4()),
            manifest=manifest,
            source=source,
            generation=current.generation + 1 if current else 1,
            created_ns=now_ns,
            updated_ns=now_ns,
        )
        return _changed(None, view, Action.CREATED, f"created from {source}")
    if current.manifest == manifest:
        same = ApplyResult(
            current.name, Action.UNCHANGED, current.generation, "nothing changes", None, manifest, manifest
        )
        return same, None if source == current.source else SaveResource(replace(current, source=source))
    changes_spec = current.manifest.spec != manifest.spec
    view = replace(
        current,
        manifest=manifest,
        source=source,
        generation=current.generation + changes_spec,
        updated_ns=now_ns,
    )
    consequence = "changes in place" if changes_spec else "changes labels or annotations only"
    return _changed(current.manifest, view, Action.CONFIGURED, consequence)


def _changed(
    before: ResourceManifest | None, view: ResourceView, action: Action, consequence: str
) -> tuple[ApplyResult, SaveResource]:
    name = JobName(key_of(view.manifest))
    reason = "Created" if action is Action.CREATED else "Configured"
    result = ApplyResult(
        name,
        action,
        view.generation,
        "" if action is Action.CREATED else consequence,
        None,
        before,
        view.manifest,
    )
    return result, SaveResource(view, [EventDraft(name, "", "Normal", reason, consequence)])
