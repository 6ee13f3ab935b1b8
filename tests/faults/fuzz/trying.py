"""Starts workers and judges what they come back with, crashes included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.guest.boot import REPOSITORY

START_AND_END_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of one reader. finding: empty if there was none; else all that is needed to see it again."""

    name: str
    tried: int
    accepted: int
    refused: int
    slowest_seconds: float
    grown_bytes: int
    finding: str


def try_reader(name: str, *, seed: str, seconds: float) -> Tried:
    """Try a reader for so long."""
    with tempfile.TemporaryDirectory(prefix=f"joblet-test-{os.getpid()}-fuzz-") as directory:
        current = Path(directory, "current")
        command = [sys.executable, "-m", "tests.faults.fuzz.worker", name, "--seed", seed]
        ended = subprocess.run(
            [*command, "--seconds", str(seconds), "--current", str(current)],
            cwd=REPOSITORY,
            env={**os.environ, "TMPDIR": directory},  # it may die, and leave them
            capture_output=True,
            check=False,
            timeout=2 * seconds + START_AND_END_SECONDS,
        )
        again = f"python -m tests.faults.fuzz.worker {name} --seed {seed} --only"
        lines = ended.stdout.decode(errors="replace").splitlines()
        if ended.returncode not in (0, 1) or not lines:
            number = int.from_bytes(current.read_bytes(), sys.byteorder) if current.exists() else -1
            words = ended.stderr.decode(errors="replace")[-4000:]
            return Tried(name, 0, 0, 0, 0.0, 0, f"died with {ended.returncode}: {again} {number}\n{words}")
    report = json.loads(lines[-1])
    finding = report.pop("finding")
    del report["slowest_number"]
    text = f"{finding['what']}: {again} {finding['number']}\n{finding['input']}\n{finding['trace']}" if finding else ""
    return Tried(name, **report, finding=text)
