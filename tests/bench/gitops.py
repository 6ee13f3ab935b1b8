"""A repository of 200 manifests on a local git server: push to running, a look that finds nothing new, and the end of all."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from joblet.api.v1 import job_pb2, resource_pb2, resource_pb2_grpc
from tests.bench.report import BenchResult, Budget, at_most
from tests.git_repository import Repository, job
from tests.integration.git_server import TOKEN, HttpsServer, serving
from tests.integration.host import Host, job_host

MANIFESTS = 200
INTERVAL_SECONDS = 2
BEYOND_INTERVAL_SECONDS = 2.0
QUIET_CPU_MS = 50.0
ROUNDS = 3
QUIET_LOOKS = 20
SECRET = "apiVersion: joblet/v1\nkind: Secret\nmetadata: {{name: git}}\nspec: {{data: {data}}}\n"
SOURCE = (
    "apiVersion: joblet/v1\nkind: GitSource\nmetadata: {{name: fleet}}\n"
    "spec: {{url: '{url}', credentials: git, interval: {interval}}}\n"
)


def run() -> BenchResult:
    with tempfile.TemporaryDirectory(prefix=f"joblet-test-{os.getpid()}-") as directory:
        repository = Repository(Path(directory, "clone"), Path(directory, "origin.git"))
        server = HttpsServer(Path(directory))
        with serving(server), job_host() as host:
            rows, budgets = measure(host, repository, server)
    return BenchResult(
        name="gitops",
        title="A git source",
        about=f"A repository of {MANIFESTS} manifests behind a server of https on this host, looked at every {INTERVAL_SECONDS} "
        "s, or when told to. Each job is a `sleep` in a sandbox of its own; every commit changes all of them, so all are stopped "
        "and started anew.",
        summary=tuple(f"{what}: {took}" for what, took in rows),
        budgets=budgets,
    )


def measure(
    host: Host, repository: Repository, server: HttpsServer
) -> tuple[list[tuple[str, str]], tuple[Budget, ...]]:
    """What was measured, and what it took; printed as it goes."""
    rows: list[tuple[str, str]] = []

    def said(what: str, took: str) -> None:
        print(f"{what}: {took}", flush=True)
        rows.append((what, took))

    url = f"{server.url}/{repository.origin.name}"
    host.apply(SECRET.format(data=json.dumps({"token": TOKEN, "ca.crt": server.ca})))
    repository.commit({"README": "nothing yet"})
    host.apply(SOURCE.format(url=url, interval=f"{INTERVAL_SECONDS}s"))
    waits = []
    for number in range(ROUNDS):
        repository.commit(manifests(number), "--quiet")
        waits.append(seconds_until(host, number))
        remove_all(host, repository)
    took = f"{statistics.median(waits):.2f} s median, {max(waits):.2f} s at most, of {ROUNDS}"
    said(f"push to all {MANIFESTS} running, at an interval of {INTERVAL_SECONDS} s", took)
    host.apply(SOURCE.format(url=url, interval="1h"))
    repository.commit(manifests(0))
    sync(host)
    seconds_until(host, 0)
    repository.commit(manifests(ROUNDS))
    begin = time.perf_counter()
    sync(host)
    looked = time.perf_counter() - begin
    seconds_until(host, ROUNDS)
    took = f"{looked:.2f} s, all running after {time.perf_counter() - begin:.2f} s"
    said("`rnx sync` of a commit that changes all", took)
    own, children = min(cpu_ms(host, lambda: [sync(host) for _ in range(QUIET_LOOKS)]) for _ in range(3))
    took = f"{own / QUIET_LOOKS:.1f} ms of the daemon's CPU, {children / QUIET_LOOKS:.1f} of git's"
    said("a look that finds nothing new", took)
    said("`git rm` of all, held back first, then stopped and gone", f"{remove_all(host, repository):.2f} s")
    return rows, (
        at_most(
            f"push of {MANIFESTS} manifests to all of them running, beyond one interval, the longest",
            BEYOND_INTERVAL_SECONDS,
            max(max(waits) - INTERVAL_SECONDS, 0.0),
            "s",
        ),
        at_most("CPU of the daemon for a look at git that finds nothing new", QUIET_CPU_MS, own / QUIET_LOOKS, "ms"),
    )


def remove_all(host: Host, repository: Repository) -> float:
    """Which the guard holds back until it is let through. Returns how long that took then."""
    repository.remove("jobs")
    repository.commit()
    answer = sync(host)
    assert answer.reason == "DeletionGuard", answer
    begin = time.perf_counter()
    answer = sync(host, allow_delete=True)
    assert answer.in_line, answer
    while list(host.jobs.List(job_pb2.ListRequest(page_size=1)).jobs):
        time.sleep(0.02)
    return time.perf_counter() - begin


def manifests(number: int) -> dict[str, str]:
    return {f"jobs/j{one:03}.yml": job(f"j{one:03}", f'[sleep, "{1000 + number}"]') for one in range(MANIFESTS)}


def run_is(run: job_pb2.Run, number: int) -> bool:
    return run.phase == "RUNNING" and run.command[1] == str(1000 + number)


def seconds_until(host: Host, number: int) -> float:
    """How long until each job runs as that round has it."""
    begin = time.perf_counter()
    found: set[str] = set()
    stream = host.jobs.Watch(job_pb2.WatchRequest())
    for event in stream:
        if event.job.runs and run_is(event.job.runs[0], number):
            found.add(event.job.name)
            if len(found) == MANIFESTS:
                break
    stream.cancel()
    return time.perf_counter() - begin


def sync(host: Host, *, allow_delete: bool = False) -> resource_pb2.SyncSourceResponse:
    host.client()
    service = resource_pb2_grpc.ResourceServiceStub(host.channels["admin"])
    answer: resource_pb2.SyncSourceResponse = service.SyncSource(
        resource_pb2.SyncSourceRequest(name="fleet", allow_delete=allow_delete)
    )
    return answer


def cpu_ms(host: Host, work: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds that the daemon itself, and programs that it started and that have ended, use meanwhile."""
    before = _times(host)
    work()
    after = _times(host)
    tick_ms = 1000 / os.sysconf("SC_CLK_TCK")
    return (after[0] - before[0]) * tick_ms, (after[1] - before[1]) * tick_ms


def _times(host: Host) -> tuple[int, int]:
    assert host.daemon is not None
    fields = Path(f"/proc/{host.daemon.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
