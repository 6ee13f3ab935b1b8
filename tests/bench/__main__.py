"""``python -m tests.bench [NAME]``: run one benchmark or all; ``make bench B=launch``."""

from __future__ import annotations

import importlib
import sys

BENCHMARKS = ("launch", "memory", "output", "end_to_end", "client", "network", "gitops", "layers")


def main() -> int:
    names = sys.argv[1:] or BENCHMARKS
    for name in names:
        if name not in BENCHMARKS:
            print(f"no benchmark {name!r}: there are {', '.join(BENCHMARKS)}", file=sys.stderr)
            return 2
    for name in names:
        print(f"== {name}", flush=True)
        importlib.import_module(f"tests.bench.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
