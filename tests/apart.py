"""A function of a test in a process of its own, of one thread: a fork of ours keeps what other threads are in the middle of.

The test runner has threads (xdist's, gRPC's): their locks stay held for ever in a child that is forked meanwhile.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.timing import PATIENCE

REPOSITORY = Path(__file__).parents[1]


def run_apart(function: Callable[..., object], *arguments: str | int | bool, seconds: float = 60) -> None:
    """Call a function of a module there; it must come back. What it said otherwise is in the error."""
    command = [sys.executable, "-m", "tests.apart", function.__module__, function.__qualname__, json.dumps(arguments)]
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=seconds * PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr


def main(module: str, name: str, arguments: str) -> None:
    getattr(importlib.import_module(module), name)(*json.loads(arguments))


if __name__ == "__main__":
    main(*sys.argv[1:])
