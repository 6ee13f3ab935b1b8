"""Which trace a new run belongs to, and which spans are over: told by the registry before each change is durable, and after.

What is entered (an apply, a trigger) is known to whatever the same call or task does, by a context variable. A context that came
with the call stands above it, and its sampled flag decides for the whole trace; without one a trace begins here, by the ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

from joblet.clock import Clock
from joblet.trace_context import SpanPlace, TraceContext, new_id
from jobletd.model import JobName, JobView, ResourceView, RunId
from jobletd.registry import Registry
from jobletd.saves import Save, SaveResource
from jobletd.store import Store, trace_rows
from jobletd.tracing import incoming
from jobletd.tracing.course import Saved, spans_of
from jobletd.tracing.span import Span

TRACED_KIND = "Workflow"  # of the resources: what has a course of its own
ALL_IDS = 2**64


@dataclass(slots=True)
class _Entered:
    """What a call or task is at. counts: something was put on record in it."""

    context: TraceContext
    counts: bool = False


@dataclass(frozen=True, slots=True)
class Begun:
    """Changes whose new runs have their places, and the places of what is no run, by its key."""

    saves: Sequence[Save | SaveResource]
    places: Mapping[str, SpanPlace]
    began_ns: int


_entered: ContextVar[_Entered | None] = ContextVar("entered", default=None)


class Tracing:
    """One for the daemon. tell: of a span that is over. ratio: of the traces that begin here and are recorded."""

    def __init__(self, tell: Callable[[Span], None], clock: Clock, ratio: float) -> None:
        self._tell = tell
        self._clock = clock
        self._ratio = ratio
        self._places: dict[str, SpanPlace] = {}

    async def load(self, store: Store) -> None:
        """What an earlier daemon was at; runs bring theirs along."""
        self._places = dict(await store.read(trace_rows.load_places))

    @contextmanager
    def entered(self, name: str, attributes: Mapping[str, str | int | float]) -> Iterator[None]:
        """A span around what is done meanwhile; one in which nothing was changed is told only to a client that asked."""
        call, around = incoming.call.get(), _entered.get()
        asked = call.context if call is not None else None
        above = around.context if around is not None else asked
        here = _Entered(self._begin() if above is None else above.child())
        began_ns, fault = self._clock.wall_ns(), ""
        token = _entered.set(here)
        try:
            yield
        except Exception as error:
            fault = type(error).__name__
            raise
        finally:
            _entered.reset(token)
            if here.context.sampled and (here.counts or asked is not None):
                above_id = "" if above is None else above.span_id
                served = around is None and call is not None
                now_ns = max(self._clock.wall_ns(), began_ns)
                self._tell(Span(name, here.context, above_id, began_ns, now_ns, attributes, fault, served))

    @contextmanager
    def below(self, key: str) -> Iterator[None]:
        """What is done meanwhile belongs to what has that key."""
        place = self._places.get(key)
        token = _entered.set(None if place is None else _Entered(place.context))
        try:
            yield
        finally:
            _entered.reset(token)

    def place(self) -> SpanPlace:
        """Of something new: below what is entered, or the first of a trace."""
        around = _entered.get()
        if around is None:
            return SpanPlace(self._begin(), self._clock.wall_ns())
        around.counts = True
        return SpanPlace(around.context.child(), self._clock.wall_ns(), around.context.span_id)

    def begun(self, saves: Sequence[Save | SaveResource], registry: Registry) -> Begun:
        """Before a change is made durable."""
        placed = [self._placed(save, registry.by_run) for save in saves]
        fresh = [save.view for save in saves if isinstance(save, SaveResource) and _begins(save, registry.resources)]
        return Begun(placed, {view.name: self.place() for view in fresh}, self._clock.wall_ns())

    def done(self, begun: Begun, registry: Registry) -> None:
        """After it is durable, and before it is seen in the registry."""
        now_ns = self._clock.wall_ns()
        self._places.update(begun.places)
        around = _entered.get()
        if around is not None:
            around.counts = True
            if around.context.sampled:
                about = {"joblet.changes": len(begun.saves)}
                context = around.context
                self._tell(Span("joblet.store", context.child(), context.span_id, begun.began_ns, now_ns, about))
        for save in begun.saves:
            if isinstance(save, SaveResource):
                if save.remove:
                    self._places.pop(save.view.name, None)
                continue
            known = registry.views.get(save.view.name)
            for run in save.runs:
                before = next((one for one in known.runs if one.id == run.id), None) if known is not None else None
                saved = Saved(before, run, str(save.view.source), begun.began_ns, now_ns)
                for span in spans_of(saved):
                    self._tell(span)

    def began_anew(self, key: str, place: SpanPlace) -> None:
        """What has that key goes on in another span, which is on record."""
        self._places[key] = place

    def place_of(self, key: str) -> SpanPlace | None:
        """Where what has that key goes on."""
        return self._places.get(key)

    def ended(self, place: SpanPlace | None, attributes: Mapping[str, str | int | float], *, fault: str) -> None:
        """What went on there is over, and that is on record: told before, a daemon that dies over it would tell it twice."""
        if place is not None and place.context.sampled:
            now_ns = max(self._clock.wall_ns(), place.began_ns)
            self._tell(Span("joblet.workflow", place.context, place.above, place.began_ns, now_ns, attributes, fault))

    def _begin(self) -> TraceContext:
        trace_id = new_id(16)
        return TraceContext(trace_id, new_id(8), int(trace_id[16:], 16) < self._ratio * ALL_IDS)

    def _placed(self, save: Save | SaveResource, known: Mapping[RunId, JobName]) -> Save | SaveResource:
        """With a place for each run that is new."""
        if isinstance(save, SaveResource):
            return save
        fresh = {run.id: replace(run, trace=self.place()) for run in save.runs if run.id not in known}
        if not fresh:
            return save
        view: JobView = replace(save.view, runs=tuple(fresh.get(run.id, run) for run in save.view.runs))
        return replace(save, view=view, runs=tuple(fresh.get(run.id, run) for run in save.runs))


def _begins(save: SaveResource, known: Mapping[JobName, ResourceView]) -> bool:
    """Whether a run of its own comes with it."""
    view = save.view
    if view.manifest.kind != TRACED_KIND or save.remove or view.deleting:
        return False
    before = known.get(view.name)
    return before is None or before.generation != view.generation
