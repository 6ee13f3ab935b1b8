"""The budget of each guard: ``budget.json``, how far above it a count may lie, and where to look when it does.

``python -m tests.counts`` counts everything and shows it beside the budget; with ``--write`` it becomes the budget, in a commit
that says why it grew.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_suffix(".json")
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
OTHER_PYTHON_PERCENT = 20.0  # another interpreter has other modules and objects, through no fault of ours
SHOWN = 12


@dataclass(frozen=True)
class Guard:
    """name: in the file. unit: of what is counted. percent: how far above the budget is allowed. look: where it is made."""

    name: str
    unit: str
    percent: float
    look: str
    of_python: bool = False


LAUNCH = Guard(
    "launch",
    "system calls of one launch",
    2,
    "joblet/sandbox/launcher.py (launcher), setup.py and mounts.py (set-up), init.py (init), birth.py and command.py (command); "
    "strace -ff -p LAUNCHER shows each call",
)
STATEMENTS = Guard(
    "statements",
    "SQL statements of one job, from apply to completed",
    3,
    "jobletd/saves.py, and who calls save(): desired.py for the apply, "
    "live_attempts.py and run_records.py for the rest",
)
SYNCS = Guard(
    "syncs",
    "waits for the disk of one job, from apply to completed",
    0,
    "joblet.db-wal: commits of jobletd/store, one a save() when there is no other; exit.json and its directory: "
    "joblet/sandbox/exit_record.py; others: joblet/atomicfile.py with durable=True",
)
HELP = Guard(
    "help",
    "modules that rnx --help loads",
    3,
    "python -X importtime -m rnx --help; imports of cli/rnx/main.py and lazy_group.py belong into the functions that need them",
    of_python=True,
)
LAUNCHER_BLOCKS = Guard(
    "launcher-blocks",
    "blocks of memory of the launcher, ready",
    2,
    "what joblet/sandbox/launcher.py and init.py import; each init has it all",
    of_python=True,
)
DAEMON_BLOCKS = Guard(
    "daemon-blocks",
    "blocks of memory of joblet serve, ready and without jobs",
    2,
    "imports of jobletd/serve.py (python -X importtime), and what is made before 'ready'",
    of_python=True,
)
LOOKS = Guard(
    "looks",
    "looks of the profiler at 500 idle jobs, and what comes with them, a minute",
    2,
    "jobletd/monitoring: agenda.py for how often, profiler.py for what is read and kept",
)


class OverBudget(AssertionError):
    """What grew, by how much, and where to look."""


def recorded() -> dict[str, dict[str, int]]:
    """The counts of each guard, by what they are of."""
    found: dict[str, dict[str, int]] = json.loads(FILE.read_text())["counts"]
    return found


def allowed(guard: Guard, budget: int) -> int:
    same = json.loads(FILE.read_text())["python"] == PYTHON
    percent = guard.percent if same or not guard.of_python else OTHER_PYTHON_PERCENT
    return budget + int(budget * percent / 100)


def check(guard: Guard, counted: Mapping[str, int], *, kind: str = "") -> None:
    """Raises OverBudget. kind: where a host of another kind has another budget."""
    name = f"{guard.name}-{kind}" if kind else guard.name
    budget = recorded()[name]
    total, before = sum(counted.values()), sum(budget.values())
    most = allowed(guard, before)
    if total <= most:
        return
    grown = sorted(
        ((counted.get(key, 0) - budget.get(key, 0), key) for key in counted.keys() | budget.keys()), reverse=True
    )
    lines = [
        f"  {key}: {budget.get(key, 0)} -> {counted.get(key, 0)} (+{more})" for more, key in grown[:SHOWN] if more > 0
    ]
    raise OverBudget(
        f"{guard.unit}: {total}, {total - before} more than recorded ({before}) and {total - most} more than allowed\n"
        + "\n".join(lines)
        + f"\nlook at {guard.look}\nif it has to be: python -m tests.counts --write, and say in the commit why"
    )


def write(counts: Mapping[str, Mapping[str, int]]) -> None:
    """Budgets of other kinds of hosts stay."""
    all_of_them = {
        **(recorded() if FILE.exists() else {}),
        **{name: dict(sorted(c.items())) for name, c in counts.items()},
    }
    FILE.write_text(json.dumps({"python": PYTHON, "counts": dict(sorted(all_of_them.items()))}, indent=1) + "\n")
