"""What happens in the guest before and after its power is cut: ``python -m tests.guest.power_cut before|after``.

What was seen goes to standard output, one JSON object a line, for tests/guest/test_reboot.py to judge: after a power cut nobody
else could tell.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc

from joblet.api.v1 import job_pb2
from tests.integration.host import Host, eventually

ROOT = Path("/tmp/joblet-test-reboot")  # on the disk that is kept
CUT = Path("/run/guest/power-cut")
DAY = 86_400.0
BEFORE_THE_CUT = 10  # applies acknowledged under load
JOBS = """
    {apiVersion: joblet/v1, kind: Job, metadata: {name: finished}, spec: {command: [sh, -c, "echo intact; exit 3"]}}
    ---
    {apiVersion: joblet/v1, kind: Job, metadata: {name: retried},
     spec: {command: [sleep, '600'], retry: {limit: 1, initial: 1s}}}
    ---
    {apiVersion: joblet/v1, kind: Job, metadata: {name: not-retried}, spec: {command: [sleep, '600']}}
    ---
    {apiVersion: joblet/v1, kind: Job, metadata: {name: named-codes},
     spec: {command: [sleep, '600'], retry: {limit: 1, initial: 1s, onExitCodes: [75]}}}
    ---
    {apiVersion: joblet/v1, kind: Job, metadata: {name: service},
     spec: {command: [sleep, '600'], restart: Always, retry: {initial: 1s}}}
"""
TIMED = """
    {apiVersion: joblet/v1, kind: Job, metadata: {name: timed}, spec: {command: [sleep, '600'], timeout: 15s}}
    ---
    {apiVersion: joblet/v1, kind: Job, metadata: {name: paused},
     spec: {command: ['false'], retry: {limit: 1, initial: 10s, max: 24h}}}
"""
SCHEDULED = """{{apiVersion: joblet/v1, kind: Job, metadata: {{name: scheduled}},
    spec: {{command: ['true'], schedule: {{at: "{0}"}}}}}}"""
LOAD = "{{apiVersion: joblet/v1, kind: Job, metadata: {{name: load-{0}}}, spec: {{command: [echo, ran]}}}}"


def tell(what: str, **facts: Any) -> None:
    """One line; whole, whatever happens next."""
    os.write(1, json.dumps({"what": what, **facts}).encode() + b"\n")


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def set_wall(by_seconds: float) -> None:
    time.clock_settime(time.CLOCK_REALTIME, time.time() + by_seconds)


def start(host: Host) -> None:
    """By its socket: certificates do not count on a day for which they were not issued."""
    host.start()
    host.channels["admin"] = grpc.insecure_channel(f"unix:{host.root}/run/joblet.sock")


def shown(run: job_pb2.Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "phase": run.phase,
        "reason": run.reason,
        "code": run.exit_code if run.HasField("exit_code") else None,
        "attempts": [[attempt.phase, attempt.reason] for attempt in run.attempts],
    }


def before() -> None:
    host = Host(ROOT)
    host.prepare()
    start(host)
    os.sync()  # the clients' files that our harness has just written; Joblet sees to its own from here
    host.apply(JOBS)
    host.apply(SCHEDULED.format((datetime.now(UTC) + timedelta(days=30)).isoformat(timespec="seconds")))
    for name in ("retried", "not-retried", "named-codes", "service"):
        host.running(name)
    host.finished("finished")
    host.apply(TIMED)  # last, since their time begins
    host.running("timed")
    host.watch_until("paused", lambda run: run.phase == "SCHEDULED")
    jump(host)
    tell("finished", run=shown(host.run("finished")), log=host.log("finished").decode())
    tell("scheduled", **scheduled(host))
    tell("boot", id=boot_id(), pids={path.parent.name: pid for path, pid in pids()})
    acknowledged = threading.Event()
    threading.Thread(target=load, args=(host, acknowledged), daemon=True).start()
    acknowledged.wait()
    CUT.touch()
    time.sleep(60)  # the power is cut meanwhile
    raise AssertionError("the power was not cut")


def scheduled(host: Host) -> dict[str, Any]:
    job = host.job("scheduled")
    return {"due": job.next_tick.seconds, "runs": len(job.runs)}


def jump(host: Host) -> None:
    """The clock goes a day ahead, then to a day behind, then back: timeouts and pauses are what they were."""
    for by in (DAY, -2 * DAY):
        set_wall(by)
        time.sleep(0.5)  # long enough for a timer that the jump would have made due
        tell("jumped", by=by, timed=shown(host.run("timed")), paused=shown(host.run("paused")))
    host.finished("timed", within=6)
    host.finished("paused", within=6)
    set_wall(DAY)
    with closing(sqlite3.connect(f"file:{ROOT}/state/joblet.db?mode=ro", uri=True)) as store:
        query = "SELECT created_boot FROM attempts WHERE id LIKE 'paused-%' ORDER BY number"
        first, second = (int(text.split()[1]) for (text,) in store.execute(query))
    tell("after jumps", timed=shown(host.run("timed")), paused=shown(host.run("paused")), pause=(second - first) / 1e9)


def load(host: Host, acknowledged: threading.Event) -> None:
    """Short jobs, one after the other, until the power is gone."""
    for number in range(1000):
        host.apply(LOAD.format(number))
        tell("acknowledged", job=f"load-{number}")
        if number == BEFORE_THE_CUT:
            acknowledged.set()


def pids() -> list[tuple[Path, int]]:
    """The inits' pids, as their state files have them."""
    states = sorted((ROOT / "state/attempts").glob("*/state"))
    return [(path, int(path.read_text().split()[1])) for path in states if path.read_text()]


def after() -> None:
    set_wall(-3 * DAY)  # a machine whose clock has lost its battery
    left = pids()
    decoys = [decoy(pid) for path, pid in left if path.parent.name.startswith(("retried", "service"))]
    host = Host(ROOT)
    start(host)
    retried = eventually(lambda: has_second(host, "retried"), what="the second attempt of retried")
    service = eventually(lambda: has_second(host, "service"), what="the second attempt of service")
    alive = [pid for pid in decoys if Path(f"/proc/{pid}/comm").read_text() == "sleep\n"]
    tell("boot", id=boot_id(), decoys=decoys, alive=alive)
    tell("running", retried=retried, service=service)
    for name in ("not-retried", "named-codes", "timed", "paused"):
        tell("ended", job=name, run=shown(host.finished(name)))
    finished = host.job("finished", history=True)
    tell("finished", run=shown(finished.runs[0]), runs=len(finished.runs), log=host.log("finished").decode())
    names = sorted(job.name for job in host.jobs.List(job_pb2.ListRequest()).jobs if job.name.startswith("load-"))
    for name in names:
        tell("load", job=name, run=shown(host.finished(name)))
    tell("scheduled", **scheduled(host))
    (again,) = host.apply(LOAD.format(0))
    tell("applied again", action=again.action)
    tell("stopped", status=host.stop(), left=sorted(os.listdir(ROOT / "state/attempts")))
    for pid in decoys:
        os.kill(pid, signal.SIGKILL)


def has_second(host: Host, name: str) -> dict[str, Any] | None:
    run = host.run(name)
    return shown(run) if len(run.attempts) == 2 and run.attempts[1].phase == "RUNNING" else None


def decoy(pid: int) -> int:
    """A process of somebody else that has, by chance, the pid of an init from before."""
    last = Path("/proc/sys/kernel/ns_last_pid")
    if last.exists():
        last.write_text(str(pid - 1))
    while True:
        process = subprocess.Popen(["sleep", "600"])
        if process.pid == pid:
            return pid
        process.kill()
        process.wait()
        if process.pid > pid:
            raise AssertionError(f"{pid} was passed by")


if __name__ == "__main__":
    {"before": before, "after": after}[sys.argv[1]]()
