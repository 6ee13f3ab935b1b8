"""What becomes of runs, put on record: the end of an attempt with what follows from it, and the end of a run.

What an attempt's end means is decided by ``decisions`` alone; with a record that ends an attempt goes the run's place.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import replace

from jobletd.arrays.controller import told_of_index
from jobletd.arrays.progress import at_the_end
from jobletd.conditions import with_limits_condition
from jobletd.decisions import Finish, Retry, after_attempt, phase_of
from jobletd.metrics.ends import count_run
from jobletd.model import Attempt, End, JobView, LimitStatus, Phase, Reason, Run
from jobletd.notifying.drafts import drafts_of
from jobletd.places import Places
from jobletd.planning import with_runs
from jobletd.registry import Registry
from jobletd.saves import EventDraft, Save


class RunRecords:
    """bounded: a run within what the configuration allows each."""

    def __init__(self, registry: Registry, places: Places, bounded: Callable[[Run], Run]) -> None:
        self._registry = registry
        self._places = places
        self._bounded = bounded
        self._node = socket.gethostname()

    async def end_attempt(
        self, view: JobView, run: Run, attempt: Attempt, end: End, limits: tuple[LimitStatus, ...]
    ) -> None:
        """And what follows from it, in the same transaction."""
        events = []
        if attempt.phase is not Phase.RUNNING and end.started_ns is not None:  # it was over before we had seen it run
            events.append(EventDraft(run.job, run.id, "Normal", "Started", f"attempt {attempt.number} ran"))
        attempt = replace(
            attempt,
            phase=phase_of(run, end),
            started_ns=attempt.started_ns or end.started_ns,
            limits=limits or attempt.limits,
            end=end,
        )
        run = replace(with_attempt(run, attempt), outcome=end.outcome, started_ns=run.started_ns or end.started_ns)
        now = self._registry.clock.now()
        following = after_attempt(self._bounded(run), end, now)
        if isinstance(following, Finish):
            await self.finish(view, run, following, attempt, events)
        else:
            run = replace(
                run,
                phase=Phase.SCHEDULED,
                reason=following.reason,
                message=end.message,
                next_attempt_ns=now.wall_ns + following.wait_ns,
                next_attempt_boot=now.boot.plus(following.wait_ns),
                stop=None,
                force=False,
            )
            event = _event_of_retry(run, attempt.number, end, following)
            changed = with_limits_condition(with_runs(view, (run,)), attempt.limits, self._registry.clock.wall_ns())
            await self._registry.save(
                Save(
                    changed,
                    runs=[run],
                    attempts=[attempt],
                    events=[*events, event],
                    job=changed.conditions != view.conditions,
                )
            )
            self._places.give(run.id)

    async def finish(
        self,
        view: JobView,
        run: Run,
        finish: Finish,
        attempt: Attempt | None = None,
        earlier: Sequence[EventDraft] = (),
    ) -> float | None:
        """The run is over, for good."""
        ended_ns = (
            attempt.end.ended_ns if attempt is not None and attempt.end is not None else self._registry.clock.wall_ns()
        )
        run = replace(
            run,
            phase=finish.phase,
            reason=finish.reason,
            message=finish.message,
            ended_ns=ended_ns,
            next_attempt_ns=None,
            next_attempt_boot=None,
            marks=at_the_end(self._registry.arrays.shown(run).marks),
        )
        kind = "Warning" if finish.phase is Phase.FAILED else "Normal"
        event = EventDraft(run.job, run.id, kind, finish.phase.capitalize(), f"{finish.reason}: {finish.message}")
        attempts = [attempt] if attempt is not None else []
        changed = replace(view, observed_generation=max(view.observed_generation, run.generation))
        if attempt is not None:
            changed = with_limits_condition(changed, attempt.limits, self._registry.clock.wall_ns())
        changes_job = changed is not view and changed != view
        changed = with_runs(changed, (run,))
        await self._registry.save(
            Save(
                changed,
                runs=[run],
                attempts=attempts,
                events=[*earlier, event, *told_of_index(run)],
                job=changes_job,
                notifications=drafts_of(view, run, self._node),
            )
        )
        count_run(run)
        self._places.give(run.id)
        return None

    async def change(self, view: JobView, run: Run) -> None:
        await self._registry.save(Save(with_runs(view, (run,)), runs=[run]))


def with_attempt(run: Run, attempt: Attempt) -> Run:
    return replace(run, attempts=tuple(attempt if other.id == attempt.id else other for other in run.attempts))


def _event_of_retry(run: Run, number: int, end: End, retry: Retry) -> EventDraft:
    if retry.reason is Reason.SHUTDOWN:
        return EventDraft(
            run.job, run.id, "Normal", "Interrupted", f"attempt {number}: by a shutdown; it goes on later"
        )
    return EventDraft(run.job, run.id, "Warning", "Retrying", f"attempt {number}: {end.reason}: {end.message}")
