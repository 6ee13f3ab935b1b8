"""Others that take a job and run it later: nq and task-spooler (Debian), each with a queue of its own in a scratch directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.peers import PEER_SECONDS, checked

TRUE = "/bin/true"


@contextmanager
def scratch(kind: str) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix=f"joblet-bench-{kind}-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def nq(jobs: int) -> None:
    """One at a time, which is all it does: each waits for the locks of those before it."""
    with scratch("nq") as directory:
        for _ in range(jobs):
            checked(["env", f"NQDIR={directory}", "nq", "-q", TRUE])
        checked(["env", f"NQDIR={directory}", "nq", "-w"])


def task_spooler(jobs: int) -> None:
    """As many at a time as there are processors. It keeps how each ended, in its server's memory."""
    with scratch("tsp") as directory:
        environment = {
            **os.environ,
            "TS_SOCKET": f"{directory}/socket",
            "TMPDIR": str(directory),
            "TS_SLOTS": str(len(os.sched_getaffinity(0))),
            "TS_MAXFINISHED": str(jobs),
        }

        def tsp(*arguments: str) -> bytes:
            """Its first call starts the server, which inherits what it is given: a pipe would never end."""
            with (directory / "said").open("wb") as said:
                subprocess.run(
                    ["tsp", *arguments],
                    check=True,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    timeout=PEER_SECONDS,
                )
            return (directory / "said").read_bytes()

        try:
            numbers = [tsp("-n", TRUE).decode().strip() for _ in range(jobs)]
            for number in numbers:
                if b"finished" not in tsp("-s", number):
                    tsp("-w", number)
        finally:
            if (directory / "socket").exists():
                tsp("-K")
