"""``docs/BENCHMARKS.md`` with its plots and the same as JSON, from what one run of the benchmarks found."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench.machine import Machine
from tests.bench.plot import svg
from tests.bench.report import BenchResult, Table

HEAD = """\
# Benchmarks

Written by `make bench`, which runs them all (root, {minutes:.0f} minutes); `make bench B=launch` runs one and only prints.
All of it is in [benchmarks/results.json](benchmarks/results.json) as well.

Times on one machine drift by half from hour to hour, so whatever is compared ran in the same minutes, in turns. Read the
ratios first: below 1 is quicker than the peer, where times are compared.
"""
BUSY = "**The machine was busy with other work**: ratios may be read, times and rates, and budgets in them, may not."
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Entry:
    """One benchmark of a run. error: why it found nothing."""

    name: str
    seconds: float
    result: BenchResult | None
    error: str = ""


def write(directory: Path, machine: Machine, entries: Sequence[Entry]) -> None:
    """BENCHMARKS.md and benchmarks/ in that directory. Plots that no benchmark draws any more are removed."""
    plots = directory / "benchmarks"
    plots.mkdir(parents=True, exist_ok=True)
    for old in plots.glob("*.svg"):
        old.unlink()
    for entry in entries:
        for plot in entry.result.plots if entry.result else ():
            (plots / f"{plot.name}.svg").write_text(svg(plot))
    log = plots / "OPTIMISATION.md"
    (plots / "results.json").write_text(as_json(machine, entries))
    (directory / "BENCHMARKS.md").write_text(markdown(machine, entries, log.read_text() if log.exists() else ""))


def as_json(machine: Machine, entries: Sequence[Entry]) -> str:
    content = {"version": FORMAT_VERSION, **asdict(machine), "benchmarks": [asdict(entry) for entry in entries]}
    for name in ("facts", "versions"):
        content[name] = dict(content[name])
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def markdown(machine: Machine, entries: Sequence[Entry], optimisation_log: str = "") -> str:
    """optimisation_log: kept by hand beside the plots; its headings and links are moved to where they stand here."""
    total = sum(entry.seconds for entry in entries)
    parts = [HEAD.format(minutes=total / 60), "## Budget", *([BUSY] if machine.busy else []), _budgets(entries)]
    parts += [
        "## Machine",
        f"Measured on {machine.date}.",
        _pairs(machine.facts),
        "### Versions",
        _pairs(machine.versions),
    ]
    if missing := _not_run(entries):
        parts += ["## What could not be run here", "In the words of the tool itself where it had any.", missing]
    for entry in entries:
        parts += _section(entry)
    parts += ["## What it took", _durations(entries)]
    if optimisation_log:
        parts.append(re.sub("^#", "##", optimisation_log, flags=re.MULTILINE).replace("](../", "]("))
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _section(entry: Entry) -> list[str]:
    if entry.result is None:
        return [f"## {entry.name}", f"Failed: {entry.error}"]
    result = entry.result
    parts = [f"## {result.title}", f"`make bench B={entry.name}`. {result.about}"]
    if result.summary:
        parts.append("\n".join(f"- {line}" for line in result.summary))
    for table in result.tables:
        parts += [f"**{table.title}**", _table(table)]
    parts += [f"![{plot.title}](benchmarks/{plot.name}.svg)" for plot in result.plots]
    return parts


def _budgets(entries: Sequence[Entry]) -> str:
    rows = tuple(
        (budget.what, budget.budget, budget.measured, f"met, {budget.by}" if budget.met else f"**missed**, {budget.by}")
        for entry in entries
        for budget in (entry.result.budgets if entry.result else ())
    )
    return _table(Table("", ("what", "budget", "measured", ""), rows))


def _not_run(entries: Sequence[Entry]) -> str:
    rows = tuple(
        (one.peer, entry.name, one.why) for entry in entries for one in (entry.result.not_run if entry.result else ())
    )
    return _table(Table("", ("peer", "benchmark", "why"), rows)) if rows else ""


def _durations(entries: Sequence[Entry]) -> str:
    rows = [(entry.name, f"{entry.seconds:.0f} s") for entry in entries]
    rows.append(("**all**", f"**{sum(entry.seconds for entry in entries):.0f} s**"))
    return _table(Table("", ("benchmark", "took"), tuple(rows)))


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in pairs)


def _table(table: Table) -> str:
    rows = [table.columns, tuple("---" for _ in table.columns), *table.rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows)


def _cell(text: str) -> str:
    """One line, without what would end the cell."""
    return " ".join(text.replace("|", "\\|").split())
