"""One change of a job or of a resource, and the rows that it becomes."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from jobletd.model import Attempt, Event, JobView, ResourceView, Run, RunId
from jobletd.notifying.drafts import NotificationDraft
from jobletd.store import notification_rows, profile_rows, resource_rows, rows, trace_rows


@dataclass(frozen=True, slots=True)
class EventDraft:
    """An event to be recorded. type: Normal or Warning."""

    job: str
    run_id: str
    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class HandedOver:
    """Of an array that runs again: its indexes belong to the new run, but for those which that one runs anew."""

    old: RunId
    new: RunId
    but: Sequence[int]


@dataclass(frozen=True, slots=True)
class Save:
    """One job's change. job, generation: whether these rows change; remove: the job goes away."""

    view: JobView
    runs: Sequence[Run] = ()
    attempts: Sequence[Attempt] = ()
    events: Sequence[EventDraft] = ()
    dropped: Sequence[Attempt] = ()
    job: bool = False
    generation: bool = False
    remove: bool = False
    notifications: Sequence[NotificationDraft] = ()
    handed_over: HandedOver | None = None


@dataclass(frozen=True, slots=True)
class SaveResource:
    """One resource's change. remove: it goes away."""

    view: ResourceView
    events: Sequence[EventDraft] = ()
    remove: bool = False


def write_save(connection: sqlite3.Connection, save: Save | SaveResource, now_ns: int) -> list[Event]:
    """Within a transaction. Returns the events as they are on record."""
    if isinstance(save, SaveResource):
        if save.remove:
            resource_rows.delete_resource(connection, save.view.name)
            trace_rows.delete_place(connection, save.view.name)
        else:
            resource_rows.put_resource(connection, save.view)
        return [write_event(connection, draft, now_ns) for draft in save.events]
    if save.remove:
        rows.delete_job(connection, save.view, now_ns)
    elif save.job and save.view.array_run is None:
        rows.put_job(connection, save.view)
    if save.generation:
        rows.put_generation(connection, save.view)
        rows.put_history(connection, save.view)
    for run in save.runs:
        rows.put_run(connection, run)
    if save.handed_over is not None:
        rows.hand_over_indexes(connection, save.handed_over.old, save.handed_over.new, save.handed_over.but)
    for attempt in save.attempts:
        rows.put_attempt(connection, attempt)
    for draft in save.notifications:
        notification_rows.put_notification(connection, draft)
    for attempt in save.dropped:
        connection.execute("DELETE FROM attempts WHERE id = ?", (attempt.id,))
        profile_rows.delete_profile(connection, attempt.id)
    return [write_event(connection, event, now_ns) for event in save.events]


def write_event(connection: sqlite3.Connection, draft: EventDraft, now_ns: int) -> Event:
    return rows.put_event(
        connection,
        job=draft.job,
        run_id=draft.run_id,
        type=draft.type,
        reason=draft.reason,
        message=draft.message,
        now_ns=now_ns,
    )
