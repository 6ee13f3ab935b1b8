"""``rnx tree``: what comes from where, down to single attempts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from rnx.options import SelectorOption
from rnx.target import Target, connected

if TYPE_CHECKING:
    from joblet.api.v1 import job_pb2
    from rnx.daemon import Daemon


@dataclass
class Branch:
    """One line, and what hangs on it in the order in which it came."""

    text: str
    below: dict[str, Branch] = field(default_factory=dict)

    def grow(self, text: str) -> Branch:
        return self.below.setdefault(text, Branch(text))


@connected
def tree(
    target: Target,
    source: Annotated[
        str | None,
        typer.Argument(metavar="[SOURCE]", help="Only that one: grpc, spool, a GitSource's name; or workflow/NAME."),
    ] = None,
    selector: SelectorOption = "",
    history: Annotated[bool, typer.Option("--history", help="All runs that are kept, not the latest alone.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Of a workflow: go on until it is over.")] = False,
) -> None:
    """Show what comes from where: each source with its files, their jobs, runs and attempts; or how a workflow stands.

    \b
    Example:
      rnx tree
      rnx tree fleet --history
      rnx tree workflow/nightly --watch
    """
    from rnx.output.terminal import printable

    daemon = target.daemon()
    if source is not None and source.startswith("workflow/"):
        draw_workflow(daemon, source.removeprefix("workflow/"), watch=watch)
        return
    jobs = (job for job in daemon.list_jobs(selector=selector) if source in (None, *names_of(job.source)))
    whole = (daemon.get(job.name, history=True) for job in jobs) if history else jobs
    branches = list(grown(whole, daemon).below.values())
    if source is not None and not branches:
        check_source(daemon, source)
    for branch in branches:
        print(printable(branch.text))
        for line in drawn(branch):
            print(printable(line))


def check_source(daemon: Daemon, source: str) -> None:
    """Raises NotFound if there is no such source; one may have no jobs, or none with the labels that are asked for."""
    from joblet.manifest import nearest
    from rnx.failures import NotFound

    known = {name for job in daemon.list_jobs() for name in names_of(job.source)}
    known |= {name for one in daemon.list_resources("GitSource") for name in (one.name, f"git:{one.name}")}
    if source not in {*known, "spool", "grpc"}:
        best = nearest(source, sorted(known))
        todo = f"did you mean {best}?" if best else "rnx tree shows all sources"
        raise NotFound(f"there is no source {source!r}", todo=todo)


def draw_workflow(daemon: Daemon, name: str, *, watch: bool) -> None:
    """Once; or whenever it has changed, until it is over. On a terminal each drawing takes the place of the one before."""
    import sys

    from rnx.output.steps import is_over, workflow_lines
    from rnx.workflow_runs import looks

    shown: list[str] = []
    for workflow in looks(daemon, name):
        lines = list(workflow_lines(workflow))
        if lines != shown:
            if shown and sys.stdout.isatty():
                print(f"\x1b[{len(shown)}F\x1b[J", end="")
            print("\n".join(lines), flush=True)
            shown = lines
        if not watch or is_over(workflow):
            return


def names_of(source: str) -> tuple[str, str]:
    """What people call a source: ``git:fleet`` and ``fleet``; ``spool`` and ``spool``."""
    place, _ = split_source(source)
    return place, place.partition(":")[2] or place


def split_source(source: str) -> tuple[str, str]:
    """Where a job came from, and what names it there: ``git:fleet`` and ``jobs/a.yml @ 1a2b3c``."""
    kind, _, name = source.partition(":")
    if kind != "git":
        return kind, name
    followed, _, rest = name.partition("@")
    commit, _, file = rest.partition(":")
    return f"git:{followed}", f"{file} @ {commit}"


def grown(jobs: Iterable[job_pb2.Job], daemon: Daemon | None = None) -> Branch:
    """daemon: is asked for the indexes of arrays."""
    root = Branch("")
    for job in sorted(jobs, key=lambda one: (split_source(one.source), one.name)):
        place, file = split_source(job.source)
        branch = root.grow(place).grow(file).grow(_job(job))
        for run in job.runs:
            below = branch.grow(_run(run))
            if run.HasField("array") and daemon is not None:
                _grow_indexes(below, daemon, run)
            for attempt in run.attempts:
                below.grow(_attempt(attempt))
    return root


def drawn(branch: Branch, before: str = "") -> Iterator[str]:
    """The lines below a branch."""
    children = list(branch.below.values())
    for child in children:
        last = child is children[-1]
        yield f"{before}{'└─ ' if last else '├─ '}{child.text}"
        yield from drawn(child, before + ("   " if last else "│  "))


def _run(run: job_pb2.Run) -> str:
    from rnx.output.arrays import summary

    how = summary(run.array) if run.HasField("array") else ""
    return " ".join(filter(None, (f"run {run.id}", run.phase, run.reason, how)))


def _grow_indexes(branch: Branch, daemon: Daemon, run: job_pb2.Run) -> None:
    from rnx.indexes import some_indexes
    from rnx.output.arrays import index_text, left_out

    shown = some_indexes(daemon, run)
    for one in shown:
        below = branch.grow(index_text(one))
        for attempt in one.run.attempts if len(one.run.attempts) > 1 else ():
            below.grow(_attempt(attempt))
    if rest := left_out(shown, run.array.count, run.id):
        branch.grow(rest)


def _job(job: job_pb2.Job) -> str:
    state = "deleting" if job.deleting else "suspended" if job.suspend else ""
    return " ".join(filter(None, (f"job/{job.name}", f"generation {job.generation}", state)))


def _attempt(attempt: job_pb2.Attempt) -> str:
    exit_code = f"exit {attempt.exit_code}" if attempt.HasField("exit_code") else ""
    return " ".join(filter(None, (f"attempt {attempt.number}", attempt.phase, attempt.reason, exit_code)))
