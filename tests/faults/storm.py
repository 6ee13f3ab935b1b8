"""A storm of changes in the spool: whatever the kernel tells of it, what is there at the end is what is desired."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from joblet.api.v1 import job_pb2
from tests.faults.figures import Memory, Report
from tests.integration.host import Host, eventually, job_host

JOB = """apiVersion: joblet/v1
kind: Job
metadata: {{name: {name}, labels: {{turn: '{turn}'}}}}
spec: {{command: ['true'], suspend: true}}
"""


def spool_storm(events: int, *, seed: int = 8) -> Report:
    """So many files are written, written again, renamed and deleted as fast as it goes. Jobs are suspended: none runs."""
    report = Report()
    choose = random.Random(seed)
    with job_host() as host:
        assert host.daemon is not None
        memory = Memory(host.daemon.pid)
        memory.mark("before")
        begin = time.monotonic()
        expected = stir(host.spool, events, choose)
        stirred = time.monotonic() - begin
        eventually(lambda: found(host, memory) == expected, within=300, what="the spool's jobs")
        memory.mark("converged")
        took = time.monotonic() - begin
        report.figures |= {
            "file events": f"{events} in {stirred:.1f} s, {len(expected)} jobs at the end, converged after {took:.1f} s",
            "memory of the daemon": str(memory),
        }
        report.expect(
            not list((host.spool / "status").glob("*.error.yml")), "an error is shown for a file that is in order"
        )
    return report


def stir(spool: Path, events: int, choose: random.Random) -> dict[str, str]:
    """Returns each job that is declared at the end, with the turn of its last change."""
    files: dict[str, tuple[str, str]] = {}  # file: job, turn
    for turn in range(events):
        match choose.choices(("new", "again", "rename", "delete"), (5, 3, 1, 1))[0] if files else "new":
            case "new":
                put(spool, files, f"job-{turn}.yml", f"job-{turn}", str(turn))
            case "again":
                name = choose.choice(list(files))
                put(spool, files, name, files[name][0], str(turn))
            case "rename":
                name = choose.choice(list(files))
                os.rename(spool / name, spool / f"renamed-{turn}.yml")
                files[f"renamed-{turn}.yml"] = files.pop(name)
            case _:
                name = choose.choice(list(files))
                os.unlink(spool / name)
                del files[name]
    return dict(files.values())


def put(spool: Path, files: dict[str, tuple[str, str]], name: str, job: str, turn: str) -> None:
    scratch = spool / f".{name}"
    scratch.write_text(JOB.format(name=job, turn=turn))
    os.rename(scratch, spool / name)
    files[name] = (job, turn)


def found(host: Host, memory: Memory) -> dict[str, str]:
    memory.sample()
    jobs: dict[str, str] = {}
    token = ""
    while True:
        page = host.jobs.List(job_pb2.ListRequest(page_size=1000, page_token=token), timeout=60)
        jobs |= {job.name: job.labels["turn"] for job in page.jobs}
        token = page.next_page_token
        if not token:
            return jobs
