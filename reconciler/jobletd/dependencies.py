"""What runs wait for of other jobs, and who is to be looked at when one of those has changed.

Asked before a run's first attempt alone: what has begun does not wait any more. The run that counts is the other job's latest;
since an apply puts a generation's run on record with the generation, that is the one of what is declared now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from joblet.errors import JobletError
from joblet.manifest import Dependency, DependencyOutcome, JobManifest, Manifest, find_cycle
from jobletd.model import JobName, JobView, Phase, Reason, Run
from jobletd.registry import Registry


class DependencyCycle(JobletError):
    """Jobs would wait for each other for ever."""

    def __init__(self, cycle: tuple[str, ...]) -> None:
        self.cycle = cycle
        super().__init__(
            f"jobs would wait for each other for ever: {' -> '.join(cycle)}",
            where=f"job {cycle[0]}: spec.dependsOn",
            todo="take one of these out of dependsOn",
        )


@dataclass(frozen=True, slots=True)
class Waits:
    """It may still come. why: one sentence for people."""

    why: str


@dataclass(frozen=True, slots=True)
class Failed:
    """It cannot come any more without another run of that job."""

    why: str


class Dependencies:
    """nudge: tells the reconciler that a job wants a look."""

    def __init__(self, registry: Registry, nudge: Callable[[JobName], None]) -> None:
        self._registry = registry
        self._nudge = nudge
        self._waiting: dict[JobName, set[JobName]] = {}  # by the job that is waited for
        registry.on_change(self._changed)

    def look(self, run: Run) -> Waits | Failed | None:
        """What is in the way of the run's first attempt. Who waits is nudged when one of those jobs has changed."""
        if run.attempts:
            return None
        verdicts = [
            (dependency, verdict(dependency, self._registry.views.get(JobName(dependency.job))))
            for dependency in run.manifest.spec.depends_on
        ]
        if failed := next((found for _, found in verdicts if isinstance(found, Failed)), None):
            return failed
        waits = [(dependency, found) for dependency, found in verdicts if isinstance(found, Waits)]
        for dependency, _ in waits:
            self._waiting.setdefault(JobName(dependency.job), set()).add(run.job)
        return waits[0][1] if waits else None

    def _changed(self, name: JobName, _: JobView | None) -> None:
        for waiting in self._waiting.pop(name, ()):
            self._nudge(waiting)


def verdict(dependency: Dependency, view: JobView | None) -> Waits | Failed | None:
    """Whether the other job, as it is now, has ended as it should; None: it has."""
    name = f"job {dependency.job}"
    if view is None or view.deleting:
        return Waits(f"{name} {'does not exist' if view is None else 'is being deleted'}; apply a manifest of it")
    if view.manifest.spec.suspend:
        return Waits(f"{name} is suspended")
    if not view.runs:
        return Waits(f"{name} has not run yet")
    run = view.runs[0]
    if not run.phase.is_final:
        return Waits(f"{name} has not ended yet: its run {run.id} is {run.phase}")
    if run.reason is Reason.SUSPENDED:  # it was resumed, and its next run is on its way
        return Waits(f"{name} was suspended")
    if matches(dependency.outcome, run.phase):
        return None
    return Failed(f"{name} was to be {dependency.outcome}, and its run {run.id} ended as {run.phase} ({run.reason})")


def matches(outcome: DependencyOutcome, phase: Phase) -> bool:
    """Whether a run that ended in this phase ended as was asked for."""
    match outcome:
        case DependencyOutcome.SUCCEEDED:
            return phase is Phase.COMPLETED
        case DependencyOutcome.FAILED:
            return phase is Phase.FAILED
        case DependencyOutcome.FINISHED:
            return phase.is_final


def check_cycles(manifests: Iterable[Manifest], views: Mapping[JobName, JobView]) -> None:
    """Raises DependencyCycle if what is declared and what is to be declared together have one."""
    applied = {one.metadata.name: one for one in manifests if isinstance(one, JobManifest)}
    if not any(one.spec.depends_on for one in applied.values()):
        return

    def following(name: str) -> list[str]:
        view = views.get(JobName(name))
        manifest = applied.get(name) or (view.manifest if view is not None and not view.deleting else None)
        return [] if manifest is None else [dependency.job for dependency in manifest.spec.depends_on]

    edges: dict[str, list[str]] = {}
    queue = list(applied)
    while queue:
        name = queue.pop()
        if name not in edges:
            edges[name] = following(name)
            queue += edges[name]
    if cycle := find_cycle(edges):
        raise DependencyCycle(cycle)
