"""What the daemon writes for one job, from the apply to the record of its end: statements of SQL, and waits for the disk.

A daemon of its own, traced: by SQLite's trace callback, and by strace for ``fsync`` and its kin, in the daemon, its launcher and
its inits, rehearsals left out. Each step of the job waits for what it means to be seen, so that no two share a commit. Counted is
the cheapest of several jobs: what the daemon does besides, now and then, is only ever more.
"""

from __future__ import annotations

import os
import re
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from joblet.api.v1 import job_pb2
from joblet.sandbox.rehearsal import SCRATCH
from tests.counts.launch import traced
from tests.integration.host import Host, eventually, job_host
from tests.integration.processes import children

JOBS = 4
STATEMENTS = "JOBLET_TEST_STATEMENTS"
# Read by the interpreter of the daemon before anything else. The launcher, which runs with -I -S, does not see it.
SITE = f"""
import os, sqlite3
if "{STATEMENTS}" in os.environ and sqlite3.connect.__name__ != "traced":
    out = os.open(os.environ["{STATEMENTS}"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    connect = sqlite3.connect
    def traced(*arguments, **options):
        connection = connect(*arguments, **options)
        connection.set_trace_callback(lambda text: os.write(out, text.replace("\\n", " ").encode() + b"\\n"))
        return connection
    sqlite3.connect = traced

    import gc, signal, sys
    def tell(number, frame):
        gc.collect()
        os.write(told, b"%d\\n" % sys.getallocatedblocks())
    told = os.open(os.environ["{STATEMENTS}"] + ".blocks", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    signal.signal(signal.SIGUSR2, tell)
"""
JOB = """
    apiVersion: joblet/v1
    kind: Job
    metadata: {{name: {name}}}
    spec:
      retry: {{limit: {retries}, initial: 10ms}}
      script: |
        while [ ! -e /work/go ]; do sleep 0.02; done
        exit {code}
"""
_TABLE = re.compile(r"\b(?:FROM|INTO|UPDATE)\s+(\w+)")
_SYNC = re.compile(r"f(?:data)?sync\(\d+<([^>]*)>")


@dataclass(frozen=True)
class JobCounts:
    """statements: by ``<verb> <table>``. syncs: by what was synced."""

    statements: Mapping[str, int]
    syncs: Mapping[str, int]


class TracedHost:
    """A daemon that writes down what it asks of its database; ``counts`` also traces what it asks of the disk."""

    def __init__(self, host: Host, directory: Path) -> None:
        self.host = host
        self.directory = directory
        self.number = 0

    def counts(self, *, jobs: int = JOBS, retries: int = 0, code: int = 0) -> JobCounts:
        """Of the cheapest of so many jobs. retries, code: how often each is tried anew, and how it exits."""
        assert self.host.daemon is not None
        daemon = self.host.daemon.pid
        self.number += 1
        traces = self.directory / f"traces-{self.number}"
        traces.mkdir()
        options = ("-y", "-ttt", "--trace=fsync,fdatasync,sync_file_range,syncfs,sync")
        times, statements = [], []
        with traced([daemon, *children(daemon)], traces, *options):
            for place in range(jobs):
                began, offset = time.time(), self.log.stat().st_size
                self._one(f"counted-{self.number}-{place}", retries, code)
                times.append((began, time.time()))
                statements.append(_statements(self.log.read_bytes()[offset:]))
        lines = [line for path in traces.iterdir() for line in path.read_text().splitlines()]
        syncs = [
            _syncs(lines, began, ended) for began, ended in times[1:]
        ]  # the first init was there before the tracer
        return JobCounts(min(statements, key=_total), min(syncs, key=_total))

    def blocks(self) -> int:
        """How many blocks Python's allocator has given away in the daemon."""
        assert self.host.daemon is not None
        told = self.log.with_suffix(".blocks")
        before = told.stat().st_size
        self.host.daemon.send_signal(signal.SIGUSR2)
        return int(eventually(lambda: told.read_bytes()[before:], what="the number of blocks"))

    @property
    def log(self) -> Path:
        return self.directory / "statements"

    def _one(self, name: str, retries: int, code: int) -> None:
        self.host.apply(JOB.format(name=name, retries=retries, code=code))
        for number in range(1, retries + 2):
            self.host.watch_until(name, partial(_runs, number))
            (state,) = (self.host.root / "state/attempts").glob(f"{name}-*-{number}/state")
            Path(f"/proc/{state.read_text().split()[1]}/root/work/go").touch()
        self.host.finished(name)
        attempts = self.host.root / "state/attempts"
        eventually(lambda: not list(attempts.glob(f"{name}-*")), what="nothing left of it on the host")


def _total(counts: Mapping[str, int]) -> int:
    return sum(counts.values())


def _runs(number: int, run: job_pb2.Run) -> bool:
    return len(run.attempts) == number and run.attempts[-1].phase == "RUNNING"


@contextmanager
def traced_host() -> Iterator[TracedHost]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"joblet-test-{os.getpid()}-")))
        (directory / "sitecustomize.py").write_text(SITE)
        environment = {"PYTHONPATH": str(directory), STATEMENTS: str(directory / "statements")}
        yield TracedHost(stack.enter_context(job_host(environment=environment)), directory)


def _statements(log: bytes) -> Counter[str]:
    found: Counter[str] = Counter()
    for line in log.decode(errors="replace").splitlines():
        table = _TABLE.search(line)
        found[f"{line.split()[0]} {table[1] if table else ''}".rstrip()] += 1
    return found


def _syncs(lines: list[str], began: float, ended: float) -> Counter[str]:
    found: Counter[str] = Counter()
    for line in lines:
        moment, _, call = line.partition(" ")
        if (match := _SYNC.match(call)) and began <= float(moment) < ended and not match[1].startswith(SCRATCH):
            found[_what(match[1])] += 1
    return found


def _what(path: str) -> str:
    """A file of an attempt by its name, and its directory as what it is."""
    name = path.removesuffix(" (deleted)").rpartition("/")[2]
    return "attempt's directory" if name.startswith("counted-") else re.sub(r"\d+", "N", name)
