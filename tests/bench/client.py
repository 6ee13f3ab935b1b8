"""What a client call costs: ``rnx --help`` and ``rnx list`` beside an empty Python start plus ``import grpc``."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.rounds import alternate, print_ratios
from tests.unit.rnx.service import make_job, make_run, serve

ROUNDS = 30
JOBS = 20


def main() -> None:
    """The daemon of ``rnx list`` is a canned one on loopback, with TLS: it answers at once, so the client is measured."""
    python = sys.executable
    rnx = str(Path(python).parent / "rnx")
    with tempfile.TemporaryDirectory() as directory, serve(Path(directory)) as service:
        service.answers.jobs = {f"job-{n}": make_job(f"job-{n}", make_run(job=f"job-{n}")) for n in range(JOBS)}
        config = str(service.config())
        commands = {
            "rnx --help": [rnx, "--help"],
            "rnx list": [rnx, "--config", config, "list"],
            "Python + import grpc": [python, "-c", "import grpc"],
            "Python": [python, "-c", ""],
        }
        seconds = alternate(
            {name: lambda command=command: call(command) for name, command in commands.items()},  # type: ignore[misc]
            rounds=ROUNDS,
        )
    for name, budget in (("rnx --help", 1.5), ("rnx list", 3.0)):
        print(f"-- budget: {budget:g} times Python + import grpc")
        print_ratios(name, {key: value for key, value in seconds.items() if key == name or key.startswith("Python")})


def call(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
