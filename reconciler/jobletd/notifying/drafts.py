"""From a run's end to what is to be told: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from joblet.manifest import Hook, HookEvent, JobManifest, Restart, Retry, indexes_of
from joblet.manifest.models import History, JobSpec, Metadata
from joblet.notification import Notification, NotifiedArray, NotifiedJob, NotifiedRun, NotifiedUsage
from jobletd.arrays.progress import Mark, named
from jobletd.decisions import exit_code_of
from jobletd.model import JobName, JobView, Phase, Reason, Run

MESSAGE_CHARACTERS = 1000
MOST_LABELS = 64
HOOK_SECONDS = 300.0
_KEPT = ("env", "workdir", "files", "limits", "stop", "priority", "isolation", "volumes", "secrets")


@dataclass(frozen=True, slots=True)
class NotificationDraft:
    """One thing to be told, as it is put on record.

    id: unique for ever. body: as it is sent. hook_job: what runs, for a command.
    """

    id: str
    job: JobName
    run_id: str
    hook: Hook
    body: str
    hook_job: JobManifest | None


def event_of(run: Run) -> HookEvent:
    """How it ended, in one word."""
    if run.reason is Reason.TIMED_OUT:
        return HookEvent.TIMED_OUT
    return {Phase.COMPLETED: HookEvent.SUCCEEDED, Phase.FAILED: HookEvent.FAILED}.get(run.phase, HookEvent.STOPPED)


def wants(hook: Hook, event: HookEvent) -> bool:
    words = {event, HookEvent.FINISHED} | ({HookEvent.FAILED} if event is HookEvent.TIMED_OUT else set())
    return not words.isdisjoint(hook.on)


def drafts_of(view: JobView, run: Run, node: str) -> Sequence[NotificationDraft]:
    """What the end of this run, which is final, has to be told to whom."""
    event = event_of(run)
    found = []
    for place, hook in enumerate(run.manifest.spec.notify):
        if wants(hook, event):
            number = f"{run.id}-{place}"
            body = body_of(number, event, view, run, node)
            job = None if hook.command is None else hook_job(number, hook, run.manifest, body)
            found.append(NotificationDraft(number, view.name, run.id, hook, body, job))
    return found


def body_of(number: str, event: HookEvent, view: JobView, run: Run, node: str) -> str:
    labels = dict(list(run.manifest.metadata.labels.items())[:MOST_LABELS])
    end = run.attempts[-1].end if run.attempts else None
    usage = NotifiedUsage()
    if end is not None:
        figures = {"memoryPeakBytes": end.usage.memory_peak_bytes, "cpuSeconds": end.usage.cpu_seconds}
        usage = NotifiedUsage.model_validate({**figures, "oomKills": end.usage.oom_kills})
    told = NotifiedRun.model_validate(
        {
            "id": run.id,
            "trigger": run.trigger,
            "phase": str(run.phase),
            "reason": str(run.reason or ""),
            "message": run.message[:MESSAGE_CHARACTERS],
            "exitCode": exit_code_of(run.outcome),
            "attempts": run.attempts[-1].number if run.attempts else 0,
            "created": time_text(run.created_ns),
            "started": None if run.started_ns is None else time_text(run.started_ns),
            "ended": time_text(run.ended_ns or run.created_ns),
            "usage": usage,
            "array": array_of(run),
        }
    )
    job = NotifiedJob(name=view.name, labels=labels, generation=run.generation, source=str(view.source))
    return Notification.model_validate(
        {"id": number, "event": str(event), "node": node, "job": job, "run": told}
    ).text()


def array_of(run: Run) -> NotifiedArray | None:
    indexes = indexes_of(run.manifest.spec)
    if indexes is None or not run.marks:
        return None
    counts = {name: run.marks.count(mark) for name, mark in (("succeeded", Mark.SUCCEEDED), ("failed", Mark.FAILED))}
    failed = named(run.marks, indexes.first, Mark.FAILED)
    stopped, not_run = run.marks.count(Mark.STOPPED), run.marks.count(Mark.SKIPPED)
    return NotifiedArray.model_validate(
        {"count": len(run.marks), **counts, "stopped": stopped, "notRun": not_run, "failedIndexes": failed}
    )


def hook_job_name(number: str) -> JobName:
    return JobName(f"hook-{number}")


def number_of(name: JobName) -> str:
    """The notification that a hook's job belongs to."""
    return name.removeprefix("hook-")


def hook_job(number: str, hook: Hook, job: JobManifest, body: str) -> JobManifest:
    """The job that a command hook is: the sandbox of the job itself, with another command."""
    kept = {name: getattr(job.spec, name) for name in _KEPT}
    spec = JobSpec.model_construct(
        **{
            **kept,
            "command": hook.command,
            "env": {**job.spec.env, "JOBLET_NOTIFICATION": body},
            "timeout_seconds": HOOK_SECONDS,
            "restart": Restart.NEVER,
            "retry": Retry(limit=3),
            "history": History.model_validate({"keep": 1, "for": "1d"}),
        }
    )
    metadata = Metadata.model_construct(name=hook_job_name(number), labels={"joblet/hook-of": job.metadata.name})
    return JobManifest(apiVersion="joblet/v1", kind="Job", metadata=metadata, spec=spec)


def time_text(nanoseconds: int) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 10**6:03d}Z"
