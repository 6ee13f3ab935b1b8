"""What an apply means for one resource: from what is to what shall be, without touching anything."""

from __future__ import annotations

import uuid
from dataclasses import replace

from joblet.manifest import ResourceManifest, WorkflowManifest, key_of
from jobletd.model import Action, ApplyResult, JobName, ResourceView, Source
from jobletd.saves import EventDraft, SaveResource


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
        return _changed(None, view, Action.CREATED, _beginning(manifest))
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
    consequence = _consequence(current.manifest, manifest) if changes_spec else "changes labels or annotations only"
    return _changed(current.manifest, view, Action.CONFIGURED, consequence)


def _beginning(manifest: ResourceManifest) -> str:
    """What follows from one that is new, in a few words; empty: it is there, and that is all."""
    if not isinstance(manifest, WorkflowManifest):
        return ""
    if manifest.spec.suspend:
        return "is kept suspended"
    return "starts a run" if manifest.spec.schedule is None else "runs by its schedule"


def _consequence(before: ResourceManifest, after: ResourceManifest) -> str:
    """What a changed spec means, in a few words."""
    if not isinstance(before, WorkflowManifest) or not isinstance(after, WorkflowManifest):
        return "changes in place"
    if before.spec.suspend != after.spec.suspend:
        return "stops what runs of it" if after.spec.suspend else "goes on"
    if before.spec.work == after.spec.work:
        return "changes in place; nothing starts"
    if after.spec.suspend:
        return "is kept suspended"
    return "starts it anew" if after.spec.schedule is None else "takes effect with the next tick"


def _changed(
    before: ResourceManifest | None, view: ResourceView, action: Action, consequence: str
) -> tuple[ApplyResult, SaveResource]:
    name = JobName(key_of(view.manifest))
    created = action is Action.CREATED
    event = EventDraft(
        name,
        "",
        "Normal",
        "Created" if created else "Configured",
        f"created from {view.source}" if created else consequence,
    )
    result = ApplyResult(name, action, view.generation, consequence, None, before, view.manifest)
    return result, SaveResource(view, [event])
