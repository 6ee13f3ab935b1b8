"""``python -m tests.counts``: all counts beside their budgets; ``--write`` makes them the budgets."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

from tests.counts import budget
from tests.counts.job import traced_host
from tests.counts.launch import calls_per_launch
from tests.counts.looks import looks_a_minute
from tests.counts.start import blocks_of_launcher, modules_of_help


def counted() -> Mapping[str, Mapping[str, int]]:
    kind, calls = calls_per_launch()
    with traced_host() as host:
        blocks, job = host.blocks(), host.counts()
    return {
        f"{budget.LAUNCH.name}-{kind}": calls,
        budget.STATEMENTS.name: job.statements,
        budget.SYNCS.name: job.syncs,
        budget.HELP.name: modules_of_help(),
        budget.LAUNCHER_BLOCKS.name: {"blocks": blocks_of_launcher()},
        budget.DAEMON_BLOCKS.name: {"blocks": blocks},
        budget.LOOKS.name: looks_a_minute(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.counts", description=__doc__)
    parser.add_argument("--write", action="store_true", help="make what is counted the budget")
    write = parser.parse_args().write
    found = counted()
    before = budget.recorded() if budget.FILE.exists() else {}
    for name, counts in found.items():
        print(f"{name}: {sum(counts.values())} (budget {sum(before.get(name, {}).values())})")
    if write:
        budget.write(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
