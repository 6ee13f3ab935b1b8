"""``make fuzz MINUTES=10``: each fuzzer for its share of the time; prints what was tried, and every finding.

Readers run two at once. Where npm is, the inputs of the YAML test suite are among the samples of the manifests.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tests.faults.fuzz.live import LIVE
from tests.faults.fuzz.reader import NAMES
from tests.faults.fuzz.trying import Tried, try_reader
from tests.faults.fuzz.yaml_suite import yaml_suite

AT_ONCE = 2


def shown(tried: Tried) -> str:
    return (
        f"{tried.name:<22}{tried.tried:>10,}{tried.accepted:>10,}{tried.refused:>10,}"
        f"{tried.slowest_seconds:>10.3f}{tried.grown_bytes / (1 << 20):>10.1f}"
    )


def try_readers(names: list[str], seed: str, seconds: float) -> list[str]:
    """Returns the findings."""
    print(f"{'reader':<22}{'inputs':>10}{'taken':>10}{'refused':>10}{'slowest s':>10}{'MiB more':>10}", flush=True)
    findings = []
    with yaml_suite() as directory, ThreadPoolExecutor(AT_ONCE) as pool:
        if directory is not None:
            os.environ["JOBLET_YAML_SUITE"] = str(directory)
        for tried in pool.map(lambda name: try_reader(name, seed=seed, seconds=seconds), names):
            print(shown(tried), flush=True)
            findings += [f"{tried.name}: {tried.finding}"] if tried.finding else []
    return findings


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzz", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join((*NAMES, *LIVE))}; all if none is given"
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="for all of them together, about")
    parser.add_argument(
        "--seed", default=time.strftime("%Y-%m-%d %H:%M"), help="a new one each time unless it is given"
    )
    chosen = parser.parse_args()
    names = chosen.names or [*NAMES, *LIVE]
    readers = [name for name in names if name in NAMES]
    live = [name for name in names if name in LIVE]
    seconds = chosen.minutes * 60 / (len(readers) / AT_ONCE + len(live))
    print(f"seed {chosen.seed!r}, {seconds:.0f} s each")
    findings = try_readers(readers, chosen.seed, seconds) if readers else []
    for name in live:
        figures, found = LIVE[name](chosen.seed, seconds)
        print(f"{name}: {figures}", flush=True)
        findings += [f"{name}: {one}" for one in found]
    print("\n".join(["", *findings]) if findings else "nothing found")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
