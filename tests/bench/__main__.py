"""``python -m tests.bench [NAME...]``: all benchmarks, and the page that says what they found; or some, which only print."""

from __future__ import annotations

import argparse
import compileall
import importlib
import importlib.util
import signal
import sys
import time
import traceback
from pathlib import Path

from tests.bench import page
from tests.bench.machine import this_machine
from tests.bench.report import BenchResult

# In the order of the page, and the seconds that each may take of the fifteen minutes.
BENCHMARKS = {
    "launch": 150,
    "layers": 40,
    "end_to_end": 145,
    "arrays": 30,
    "memory": 100,
    "scale": 180,
    "output": 40,
    "client": 30,
    "noise": 40,
    "network": 40,
    "gitops": 60,
    "slurm": 40,
}
DOCS = Path(__file__).parent.parent.parent / "docs"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        epilog="Example: python -m tests.bench launch --into /tmp/launch",
        description="Run benchmarks: all of them, which writes docs/BENCHMARKS.md, or those named, which only prints.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--into", type=Path, metavar="DIR", help="write the page of what is run there")
    chosen = parser.parse_args()
    for name in chosen.names:
        if name not in BENCHMARKS:
            print(f"no benchmark {name!r}: there are {', '.join(BENCHMARKS)}", file=sys.stderr)
            return 2
    signal.signal(
        signal.SIGTERM, lambda number, _: sys.exit(128 + number)
    )  # as an exception, so that daemons and cgroups go
    into = chosen.into or (None if chosen.names else DOCS)
    compile_ours()
    machine = this_machine()
    entries = [run(name) for name in chosen.names or BENCHMARKS]
    print(f"all: {sum(entry.seconds for entry in entries):.0f} s")
    if into is not None:
        page.write(into, machine, entries)
        print(f"written: {into / 'BENCHMARKS.md'}")
    return 1 if any(entry.result is None for entry in entries) else 0


def compile_ours() -> None:
    """To byte code, as whoever installs a package has it: settings of the environment may keep Python from doing so by itself."""
    for package in ("joblet", "jobletd", "rnx"):
        spec = importlib.util.find_spec(package)
        assert spec is not None
        for directory in spec.submodule_search_locations or ():
            compileall.compile_dir(directory, quiet=1)


def run(name: str) -> page.Entry:
    """One that fails does not keep the others from being run."""
    print(f"== {name}", flush=True)
    begin = time.monotonic()
    try:
        result: BenchResult | None = importlib.import_module(f"tests.bench.{name}").run()
        error = ""
    except Exception as raised:
        traceback.print_exc()
        result, error = None, f"{type(raised).__name__}: {raised}"
    seconds = time.monotonic() - begin
    if result is not None:
        for budget in result.budgets:
            print(budget)
        for missing in result.not_run:
            print(f"not run: {missing.peer}: {missing.why}")
    print(f"{name}: {seconds:.0f} s, planned {BENCHMARKS[name]} s", flush=True)
    return page.Entry(name, seconds, result, error)


if __name__ == "__main__":
    sys.exit(main())
