"""From a change of a run, as it was put on record, to the spans that are over with it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from joblet.trace_context import SpanPlace
from jobletd.arrays.index_runs import shown_name
from jobletd.model import Attempt, End, Exited, Killed, Phase, Run
from jobletd.tracing.span import Span

Attributes = dict[str, str | int | float]


@dataclass(frozen=True, slots=True)
class Saved:
    """One change of a run. before: None for one that is new. began_ns, done_ns: of making it durable. source: the job's."""

    before: Run | None
    after: Run
    source: str
    began_ns: int
    done_ns: int


def spans_of(saved: Saved) -> Iterator[Span]:
    """Those below the run's own span, then that, once the run is over. None for a run that nobody traces."""
    place, before, after = saved.after.trace, saved.before, saved.after
    if place is None or not place.context.sampled or before is None:
        return
    told = _Course(saved, place)
    known = {attempt.id: attempt for attempt in before.attempts}
    for attempt in after.attempts[-1:]:
        earlier = known.get(attempt.id)
        if earlier is None:
            yield from told.launch_decided(before, attempt)
        elif earlier.end is None:
            yield from told.went_on(earlier, attempt)
    if after.phase.is_final and not before.phase.is_final:
        if len(after.attempts) == 0 or known.get(after.attempts[-1].id) == after.attempts[-1]:
            yield told.span("joblet.outcome", saved.began_ns, saved.done_ns, {"joblet.reason": str(after.reason)})
        yield told.whole()
    elif after.phase is Phase.PENDING and (after.reason, after.message) != (before.reason, before.message):
        about: Attributes = {"joblet.decision": "wait", "joblet.reason": str(after.reason)}
        yield told.span("joblet.reconcile", saved.began_ns, saved.done_ns, about)


class _Course:
    def __init__(self, saved: Saved, place: SpanPlace) -> None:
        self._saved = saved
        self._place = place

    def span(
        self, name: str, began_ns: int, ended_ns: int, about: Attributes, *, fault: str = "", attempt: str = ""
    ) -> Span:
        """One below the run's own. attempt: whose command it is."""
        run = self._saved.after
        context = self._place.derived(attempt) if attempt else self._place.context.child()
        attributes: Attributes = {"joblet.job": shown_name(run), "joblet.run": run.id, **about}
        return Span(name, context, self._place.context.span_id, began_ns, max(ended_ns, began_ns), attributes, fault)

    def launch_decided(self, before: Run, attempt: Attempt) -> Iterator[Span]:
        """What it had waited for, and the durable intent."""
        ends = [one.end.ended_ns for one in before.attempts if one.end is not None]
        waited: Attributes = {"joblet.reason": str(before.reason or "")}
        yield self.span("joblet.wait", max([before.created_ns, *ends]), attempt.created_ns, waited)
        about: Attributes = {"joblet.decision": "launch", "joblet.attempt": attempt.number}
        yield self.span("joblet.reconcile", self._saved.began_ns, self._saved.done_ns, about)

    def went_on(self, earlier: Attempt, attempt: Attempt) -> Iterator[Span]:
        number: Attributes = {"joblet.attempt": attempt.number}
        if earlier.started_ns is None and attempt.started_ns is not None:
            yield self.span("joblet.launch", attempt.created_ns, attempt.started_ns, number)
        end = attempt.end
        if end is None:
            return
        fault = "" if end.outcome == Exited(0) else f"{end.reason}: {end.message}".rstrip(": ")
        if attempt.started_ns is None:
            yield self.span("joblet.launch", attempt.created_ns, end.ended_ns, number, fault=fault)
        else:
            about = number | _of_end(end)
            yield self.span(
                "joblet.command", attempt.started_ns, end.ended_ns, about, fault=fault, attempt=str(attempt.id)
            )
        after = self._saved.after
        decision = "finish" if after.phase.is_final else "retry"
        outcome: Attributes = {**number, "joblet.decision": decision, "joblet.reason": str(end.reason)}
        yield self.span("joblet.outcome", self._saved.began_ns, self._saved.done_ns, outcome, fault=fault)

    def whole(self) -> Span:
        """The run's own, which all others are below."""
        run, place = self._saved.after, self._place
        attributes: Attributes = {
            "joblet.job": shown_name(run),
            "joblet.run": run.id,
            "joblet.source": self._saved.source,
            "joblet.generation": run.generation,
            "joblet.trigger": run.trigger,
            "joblet.phase": str(run.phase),
            "joblet.reason": str(run.reason),
            "joblet.attempts": len(run.attempts),
        }
        fault = f"{run.reason}: {run.message}".rstrip(": ") if run.phase is Phase.FAILED else ""
        ended_ns = max(run.ended_ns or self._saved.done_ns, run.created_ns)
        return Span("joblet.run", place.context, place.above, run.created_ns, ended_ns, attributes, fault)


def _of_end(end: End) -> Attributes:
    found: Attributes = {"joblet.reason": str(end.reason)}
    if isinstance(end.outcome, Exited):
        found["process.exit.code"] = end.outcome.code
    elif isinstance(end.outcome, Killed):
        found["joblet.signal"] = end.outcome.signal
    if end.usage.memory_peak_bytes is not None:
        found["joblet.memory.peak_bytes"] = end.usage.memory_peak_bytes
    if end.usage.cpu_seconds is not None:
        found["joblet.cpu.seconds"] = end.usage.cpu_seconds
    return found
