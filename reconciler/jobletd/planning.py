"""What an apply, a stop or a removal means for one job: from what is to what shall be, without touching anything."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Collection
from dataclasses import dataclass, replace

from joblet.manifest import ChangeKind, Comparison, JobManifest, Restart, compare, indexes_of
from jobletd.arrays.progress import Mark
from jobletd.model import Action, ApplyResult, JobView, Phase, Reason, Run, RunId, Source
from jobletd.saves import EventDraft, HandedOver, Save
from jobletd.schedules.due import ticked_after_apply

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
RUN_ID_LENGTH = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """What an apply does to one job: what it answers, and what it saves (None: nothing)."""

    result: ApplyResult
    save: Save | None


def new_run_id() -> RunId:
    """36**8 ids: two runs of a host practically never share one, and the store refuses the second if they do."""
    return RunId("".join(secrets.choice(_ALPHABET) for _ in range(RUN_ID_LENGTH)))


_LIMITS = "spec.limits."


def new_run(view: JobView, trigger: str, now_ns: int) -> Run:
    return Run(
        id=new_run_id(),
        job=view.name,
        job_uid=view.uid,
        generation=view.generation,
        trigger=trigger,
        phase=Phase.PENDING,
        manifest=view.manifest,
        created_ns=now_ns,
        marks=new_marks(view.manifest),
    )


def new_marks(manifest: JobManifest) -> str:
    """Of a new run; empty without an array."""
    indexes = indexes_of(manifest.spec)
    return Mark.NOT_BEGUN * indexes.count if indexes is not None else ""


@dataclass(frozen=True, slots=True)
class Again:
    """A new run of an array that is over: it runs some indexes, and takes over the results of all others."""

    run: Run
    handed_over: HandedOver


def run_again(view: JobView, over: Run, indexes: Collection[int] | None, now_ns: int) -> Again:
    """indexes: None: all that did not succeed."""
    array = indexes_of(over.manifest.spec)
    assert array is not None
    wanted = [
        index
        for index, mark in enumerate(over.marks, array.first)
        if (mark != Mark.SUCCEEDED if indexes is None else index in indexes)
    ]
    marks = bytearray(over.marks, "ascii")
    for index in wanted:
        marks[index - array.first] = ord(Mark.NOT_BEGUN)
    same = compare(over.manifest, view.manifest).kind is not ChangeKind.RESTART
    manifest, generation = (view.manifest, view.generation) if same else (over.manifest, over.generation)
    run = replace(new_run(view, "retry", now_ns), manifest=manifest, generation=generation, marks=marks.decode("ascii"))
    return Again(replace(run, tick_seconds=over.tick_seconds), HandedOver(over.id, run.id, wanted))


def open_runs(view: JobView) -> tuple[Run, ...]:
    return tuple(run for run in view.runs if not run.phase.is_final)


def plan_apply(
    current: JobView | None,
    manifest: JobManifest,
    source: Source,
    now_ns: int,
    *,
    limits: ChangeKind = ChangeKind.IN_PLACE,
) -> Plan:
    """The plan for one manifest; ownership was checked before. limits: what a change of those means where it runs."""
    if current is None:
        return _plan_new(manifest, source, now_ns)
    if current.deleting:
        # It comes back before it was quite gone: what still runs of the old one ends first.
        return _plan_restart(current, manifest, source, now_ns)
    if current.manifest is manifest or current.manifest == manifest:  # mostly at a start; cheaper than to compare
        return _plan_unchanged(current, manifest, source)
    comparison = compare(current.manifest, manifest)
    kind = comparison.kind
    if kind is ChangeKind.IN_PLACE and any(change.path.startswith(_LIMITS) for change in comparison.changes):
        kind = limits
    match kind:
        case ChangeKind.NONE:
            return _plan_unchanged(current, manifest, source)
        case ChangeKind.METADATA:
            view = replace(current, manifest=manifest, source=source, updated_ns=now_ns)
            consequence = "changes labels or annotations only"
            return _plan(current, view, consequence, events=[("Configured", consequence)])
        case ChangeKind.IN_PLACE:
            return _plan_in_place(current, manifest, comparison, source, now_ns)
        case ChangeKind.RESTART if manifest.spec.schedule is not None and not manifest.spec.suspend:
            # To stop what runs would leave the job undone until its next tick.
            view = _changed(current, manifest, source, now_ns)
            return _plan(current, view, "takes effect with the next tick", generation=True)
        case _:
            return _plan_restart(current, manifest, source, now_ns)


def plan_stop(view: JobView, reason: Reason, *, force: bool, only: RunId | None = None) -> tuple[Run, ...]:
    """The open runs, or that one alone, marked to end. An earlier reason stays, unless it was a shutdown, after which a run may
    go on; force may come later."""
    return tuple(
        replace(
            run,
            stop=_lasting(run.stop) or reason,
            force=run.force or force,
            next_attempt_ns=None,
            next_attempt_boot=None,
        )
        for run in open_runs(view)
        if only in (None, run.id)
    )


def _lasting(stop: Reason | None) -> Reason | None:
    return None if stop is Reason.SHUTDOWN else stop


def with_runs(view: JobView, changed: tuple[Run, ...], added: Run | None = None) -> JobView:
    """The view with these runs in place of what they were, and a new one in front; only open ones and the latest are kept."""
    by_id = {run.id: run for run in changed}
    runs = [by_id.get(run.id, run) for run in view.runs]
    if added is not None:
        runs.insert(0, added)
    return replace(view, runs=tuple(run for place, run in enumerate(runs) if place == 0 or not run.phase.is_final))


def _plan_new(manifest: JobManifest, source: Source, now_ns: int) -> Plan:
    view = JobView(
        uid=str(uuid.uuid4()),
        manifest=manifest,
        source=source,
        generation=1,
        observed_generation=0,
        created_ns=now_ns,
        updated_ns=now_ns,
    )
    if manifest.spec.suspend:
        return _plan(
            None, view, "is kept suspended", events=[("Created", f"created from {source}, suspended")], generation=True
        )
    if manifest.spec.schedule is not None:
        return _plan(
            None, view, "runs by its schedule", events=[("Created", f"created from {source}")], generation=True
        )
    run = new_run(view, "generation", now_ns)
    view = with_runs(view, (), run)
    return _plan(
        None,
        view,
        "starts a run",
        events=[("Created", f"created from {source}")],
        runs=(run,),
        run=run,
        generation=True,
    )


def _plan_unchanged(current: JobView, manifest: JobManifest, source: Source) -> Plan:
    latest = current.runs[0].id if current.runs else None
    result = ApplyResult(
        current.name, Action.UNCHANGED, current.generation, "nothing changes", latest, current.manifest, manifest
    )
    if source == current.source:
        return Plan(result, None)
    return Plan(result, Save(replace(current, source=source), job=True))


def _plan_in_place(
    current: JobView, manifest: JobManifest, comparison: Comparison, source: Source, now_ns: int
) -> Plan:
    view = _changed(current, manifest, source, now_ns)
    latest = current.runs[0] if current.runs else None
    if manifest.spec.suspend:
        stopped = plan_stop(view, Reason.SUSPENDED, force=False)
        consequence = "stops the current run" if stopped else "is kept suspended"
        return _plan(current, with_runs(view, stopped), consequence, runs=stopped, generation=True)
    if manifest.spec.schedule is not None:
        return _plan_scheduled(current, view)
    resumed = current.manifest.spec.suspend or current.manifest.spec.schedule is not None
    if resumed and _wants_run(latest, manifest):
        if latest is not None and _goes_on_as_array(latest, manifest):
            return _plan_again(current, view, latest, "goes on with the indexes that are left", now_ns)
        return _plan_added_run(current, view, (), "starts a run", now_ns)
    limits = any(change.path.startswith(_LIMITS) for change in comparison.changes)
    if latest is not None and not latest.phase.is_final and latest.stop is None:
        run = replace(latest, manifest=manifest, generation=view.generation)
        consequence = "changes limits in place" if limits else "changes nothing that runs"
        return _plan(current, with_runs(view, (run,)), consequence, runs=(run,), run=run, generation=True)
    if latest is not None and latest.phase is Phase.FAILED and limits:
        if _goes_on_as_array(latest, manifest):
            return _plan_again(current, view, latest, "runs the indexes again that did not succeed", now_ns)
        return _plan_added_run(current, view, (), "starts a run, since the last one failed", now_ns)
    if latest is not None and latest.reason is Reason.DEPENDENCY_FAILED and _depends_otherwise(current, manifest):
        return _plan_added_run(current, view, (), "starts a run, since what it depends on changed", now_ns)
    return _plan(current, view, "takes effect with the next run", generation=True)


def _goes_on_as_array(latest: Run, manifest: JobManifest) -> bool:
    """Whether a new run may keep what the latest one, which is over, has done."""
    return (
        bool(latest.marks)
        and latest.phase.is_final
        and compare(latest.manifest, manifest).kind is not ChangeKind.RESTART
    )


def _plan_again(current: JobView, view: JobView, latest: Run, consequence: str, now_ns: int) -> Plan:
    again = run_again(view, latest, None, now_ns)
    view = with_runs(view, (), again.run)
    plan = _plan(current, view, consequence, runs=(again.run,), run=again.run, generation=True)
    assert plan.save is not None
    return replace(plan, save=replace(plan.save, handed_over=again.handed_over))


def _plan_scheduled(current: JobView, view: JobView) -> Plan:
    """What changes in place reaches the runs that go on, unless they run what the job was before."""
    runs = tuple(
        replace(run, manifest=view.manifest, generation=view.generation)
        for run in open_runs(view)
        if run.stop is None and compare(run.manifest, view.manifest).kind is not ChangeKind.RESTART
    )
    consequence = "changes in place; nothing restarts" if runs else "takes effect with the next tick"
    return _plan(current, with_runs(view, runs), consequence, runs=runs, generation=True)


def _changed(current: JobView, manifest: JobManifest, source: Source, now_ns: int) -> JobView:
    return replace(current, manifest=manifest, source=source, generation=current.generation + 1, updated_ns=now_ns)


def _depends_otherwise(current: JobView, manifest: JobManifest) -> bool:
    return current.manifest.spec.depends_on != manifest.spec.depends_on


def _wants_run(latest: Run | None, manifest: JobManifest) -> bool:
    """Whether a job that is no longer suspended has something to do: what was cut short, or what never ran in this form.

    The same for one that runs no longer by a schedule.
    """
    if latest is None:
        return True
    suspended = latest.reason if latest.phase.is_final else latest.stop
    return suspended is Reason.SUSPENDED or compare(latest.manifest, manifest).kind is ChangeKind.RESTART


def _plan_restart(current: JobView, manifest: JobManifest, source: Source, now_ns: int) -> Plan:
    view = replace(_changed(current, manifest, source, now_ns), deleting=False)
    reason = Reason.SUSPENDED if manifest.spec.suspend else Reason.SUPERSEDED
    stopped = plan_stop(view, reason, force=False)
    if (serving := _goes_on(current, manifest)) is not None:
        stopped = tuple(run for run in stopped if run.id != serving.id)
        consequence = "starts a new run, and stops the current one once that is ready"
        return _plan_added_run(current, view, stopped, consequence, now_ns)
    if manifest.spec.suspend:
        consequence = "stops the current run" if stopped else "is kept suspended"
        return _plan(current, with_runs(view, stopped), consequence, runs=stopped, generation=True)
    if manifest.spec.schedule is not None:
        return _plan(current, with_runs(view, stopped), "runs by its schedule", runs=stopped, generation=True)
    consequence = "stops the current run and starts a new one" if stopped else "starts a run"
    return _plan_added_run(current, view, stopped, consequence, now_ns)


def _goes_on(current: JobView, manifest: JobManifest) -> Run | None:
    """The run that serves until the new one is ready: the oldest, unless it was told to end."""
    spec = manifest.spec
    if current.deleting or spec.suspend or spec.update.max_unavailable or spec.probe is None:
        return None
    oldest = next(reversed(open_runs(current)), None)
    if oldest is None or oldest.stop is not None or oldest.phase is not Phase.RUNNING:
        return None
    return oldest if oldest.manifest.spec.restart is Restart.ALWAYS else None


def _plan_added_run(current: JobView, view: JobView, stopped: tuple[Run, ...], consequence: str, now_ns: int) -> Plan:
    run = new_run(view, "generation", now_ns)
    view = with_runs(view, stopped, run)
    return _plan(current, view, consequence, runs=(*stopped, run), run=run, generation=True)


def _plan(
    current: JobView | None,
    view: JobView,
    consequence: str,
    *,
    runs: tuple[Run, ...] = (),
    run: Run | None = None,
    events: list[tuple[str, str]] | None = None,
    generation: bool = False,
) -> Plan:
    view = replace(view, ticked_seconds=ticked_after_apply(current, view.manifest, view.updated_ns))
    if events is None:
        events = [("Configured", f"generation {view.generation}: {consequence}")]
    result = ApplyResult(
        name=view.name,
        action=Action.CREATED if current is None else Action.CONFIGURED,
        generation=view.generation,
        consequence=consequence,
        run_id=run.id if run else view.runs[0].id if view.runs else None,
        current=current.manifest if current else None,
        desired=view.manifest,
    )
    drafts = [EventDraft(view.name, run.id if run else "", "Normal", reason, message) for reason, message in events]
    return Plan(result, Save(view, runs=runs, events=drafts, job=True, generation=generation))
