"""The whole road: apply to recorded completion over gRPC, beside runc in a loop; and a dropped file to its command's exec."""

from __future__ import annotations

import os
import statistics
import time

from joblet.api.v1 import job_pb2
from tests.bench.peers import Runc
from tests.integration.host import Host, job_host

JOBS = 500
RUNC_JOBS = 50
DROPS = 20
JOB = "apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec: {{command: {command}}}\n"


def main() -> None:
    with job_host() as host:
        rate = jobs_a_second(host)
        drop_ms = [drop_to_exec_ms(host, number) for number in range(DROPS)]
    with Runc() as runc:
        begin = time.perf_counter()
        for _ in range(RUNC_JOBS):
            runc.run(["/bin/true"])
        runc_rate = RUNC_JOBS / (time.perf_counter() - begin)
    print(f"joblet: {rate:.0f} jobs a second, apply to recorded completion, durable")
    print(f"ratio to runc in a loop: {rate / runc_rate:.2f}   (runc: {runc_rate:.0f} jobs a second)")
    print(f"drop to exec: {statistics.median(drop_ms):.1f} ms median, {max(drop_ms):.1f} ms at most")


def jobs_a_second(host: Host) -> float:
    """One client applies all in one request, and watches until each is over."""
    text = "---\n".join(JOB.format(name=f"job-{number}", command="['/bin/true']") for number in range(JOBS))
    stream = host.jobs.Watch(job_pb2.WatchRequest())
    next(iter(stream))
    begin = time.perf_counter()
    host.jobs.Apply(job_pb2.ApplyRequest(manifest=text.encode()))
    done: set[str] = set()
    for event in stream:
        if event.job.runs and event.job.runs[0].phase == "COMPLETED":
            done.add(event.job.name)
            if len(done) == JOBS:
                break
    seconds = time.perf_counter() - begin
    stream.cancel()
    return JOBS / seconds


def drop_to_exec_ms(host: Host, number: int) -> float:
    """From the rename into the spool to the time at which init saw the exec succeed."""
    name = f"dropped-{number}"
    scratch = host.spool / f".{name}.tmp"
    scratch.write_text(JOB.format(name=name, command="['/bin/true']"))
    stream = host.jobs.Watch(job_pb2.WatchRequest(label_selector=""))
    dropped_ns = time.time_ns()
    os.rename(scratch, host.spool / f"{name}.yml")
    try:
        for event in stream:
            if event.job.name != name or not event.job.runs:
                continue
            if started_ns := int(event.job.runs[0].started.ToNanoseconds()):
                return (started_ns - dropped_ns) / 1e6
    finally:
        stream.cancel()
    raise RuntimeError(f"{name} did not start")
