"""``make fuzz MINUTES=10``: each reader for its share of the time, two at once; prints what was tried, and every finding."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tests.faults.fuzz.reader import NAMES
from tests.faults.fuzz.trying import Tried, try_reader

AT_ONCE = 2


def shown(tried: Tried) -> str:
    return (
        f"{tried.name:<22}{tried.tried:>10,}{tried.accepted:>10,}{tried.refused:>10,}"
        f"{tried.slowest_seconds:>10.3f}{tried.grown_bytes / (1 << 20):>10.1f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzz", description=__doc__)
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"of {', '.join(NAMES)}; all if none is named")
    parser.add_argument("--minutes", type=float, default=1.0, help="for all of them together")
    parser.add_argument(
        "--seed", default=time.strftime("%Y-%m-%d %H:%M"), help="a new one each time unless it is given"
    )
    chosen = parser.parse_args()
    names = chosen.readers or NAMES
    seconds = chosen.minutes * 60 * AT_ONCE / len(names)
    print(f"seed {chosen.seed!r}, {seconds:.0f} s each")
    print(f"{'reader':<22}{'inputs':>10}{'taken':>10}{'refused':>10}{'slowest s':>10}{'MiB more':>10}", flush=True)
    findings = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for tried in pool.map(lambda name: try_reader(name, seed=chosen.seed, seconds=seconds), names):
            print(shown(tried), flush=True)
            findings += [f"{tried.name}: {tried.finding}"] if tried.finding else []
    print("\n".join(["", *findings]) if findings else "nothing found")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
