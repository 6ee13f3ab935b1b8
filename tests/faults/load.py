"""Load, in the size that is asked for: ``make load`` for the full one, a smaller one as a test.

Many jobs at once from several sources, thousands of watchers and followers some of which never read, a storm of changes in the
spool. Each part returns its figures, and what is wrong in words; it asserts nothing about speed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import grpc

from joblet.api.v1 import job_pb2, job_pb2_grpc, node_pb2, node_pb2_grpc
from tests.faults.figures import Memory, Report
from tests.faults.prober import probing, quantile_ms
from tests.faults.storm import spool_storm
from tests.faults.watchers import many_watchers
from tests.integration.host import Host, eventually, job_host
from tests.timing import PATIENCE

A_REQUEST = 500
WORKERS = 32  # that launch at the same time: the order in which they get ready is the kernel's
JOB = "apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec: {{command: [sleep, '{seconds}'], {more}}}\n"


@dataclass(frozen=True)
class Lane:
    """Jobs of one source with one priority, applied in the order of their numbers."""

    source: str  # client | root | spool
    priority: int
    count: int

    @property
    def prefix(self) -> str:
        return f"{self.source}-{self.priority}"

    def names(self) -> list[str]:
        return [f"{self.prefix}-{number:05d}" for number in range(self.count)]


def many_jobs(jobs: int, places: int, seconds: float, *, held: bool = False) -> Report:
    """All at once, ``places`` at a time. Most come from one client; a second one and the spool come last, with few.

    held: none starts before all are known; so who comes when is decided by nothing but the turns that are promised.
    """
    few = max(jobs // 20, 1)
    lanes = [
        Lane("client", 50, jobs - 4 * few),
        Lane("client", 20, few),
        Lane("client", 80, few),
        Lane("root", 50, few),
        Lane("spool", 50, few),
    ]
    report = Report()

    def configure(content: dict[str, Any]) -> None:
        content["joblet"]["maxConcurrentJobs"] = places

    with job_host(configure=configure) as host:
        assert host.daemon is not None
        memory = Memory(host.daemon.pid)
        memory.mark("idle")
        host.apply(JOB.format(name="probed", seconds=0, more=""))
        host.finished("probed")
        with probing(host.root, "probed") as probe:
            begin = time.monotonic()
            if held:
                assert host.rnx("cordon").status == 0
            for lane in lanes:
                apply_lane(host, lane, seconds)
            applied = time.monotonic() - begin
            if held:
                total = sum(lane.count for lane in lanes) + 1
                eventually(lambda: len(all_jobs(host)) == total, within=60, what="all jobs to be known")
                assert host.rnx("uncordon").status == 0
            memory.mark("all applied")
            wait_for_all(host, len([name for lane in lanes for name in lane.names()]), memory)
            took = time.monotonic() - begin
            memory.mark("all ended")
            lines = probe.read_text().split("\n")[:-1]
        runs = {job.name: job.runs[0] for job in all_jobs(host)}
        memory.mark("all listed")
    last = check_runs(report, lanes, runs, places)
    if held:
        check_turns(report, last)
    report.figures |= {
        "jobs": f"{jobs}, {places} at a time, applied in {applied:.0f} s, all ended after {took:.0f} s",
        "Get meanwhile": answers(report, lines),
        "memory of the daemon": str(memory),
    }
    return report


def apply_lane(host: Host, lane: Lane, seconds: float) -> None:
    more = f"priority: {lane.priority}, stop: {{grace: 0s}}"
    texts = [JOB.format(name=name, seconds=seconds, more=more) for name in lane.names()]
    if lane.source == "spool":
        for name, text in zip(lane.names(), texts, strict=True):
            scratch = host.spool / f".{name}"
            scratch.write_text(text)
            os.rename(scratch, host.spool / f"{name}.yml")
        return
    with grpc.insecure_channel(f"unix:{host.root}/run/joblet.sock") as channel:
        jobs = host.jobs if lane.source == "client" else job_pb2_grpc.JobServiceStub(channel)
        for start in range(0, len(texts), A_REQUEST):
            text = "---\n".join(texts[start : start + A_REQUEST])
            jobs.Apply(job_pb2.ApplyRequest(manifest=text.encode()), timeout=120 * PATIENCE)


def node_of(host: Host) -> node_pb2.Node:
    with grpc.insecure_channel(f"unix:{host.root}/run/joblet.sock") as channel:
        node: node_pb2.Node = node_pb2_grpc.NodeServiceStub(channel).GetNode(
            node_pb2.GetNodeRequest(), timeout=60 * PATIENCE
        )
        return node


def wait_for_all(host: Host, count: int, memory: Memory) -> None:
    """Until all ended."""
    half = False
    with grpc.insecure_channel(f"unix:{host.root}/run/joblet.sock") as channel:
        stub = node_pb2_grpc.NodeServiceStub(channel)
        while True:
            node = stub.GetNode(node_pb2.GetNodeRequest(), timeout=60 * PATIENCE)
            memory.sample()
            if not half and node.queued_jobs and node.queued_jobs < count / 2:
                half = True
                memory.mark("half ended")
            if not node.running_jobs and not node.queued_jobs and count_of_unfinished(host, count) == 0:
                return
            time.sleep(0.5)


def count_of_unfinished(host: Host, count: int) -> int:
    """Of all that were applied; those from the spool are known a moment late."""
    jobs = all_jobs(host)
    ended = sum(bool(job.runs) and job.runs[0].HasField("ended") for job in jobs)
    return count + 1 - ended


def all_jobs(host: Host) -> list[job_pb2.Job]:
    found: list[job_pb2.Job] = []
    token = ""
    while True:
        page = host.jobs.List(job_pb2.ListRequest(page_token=token, page_size=1000), timeout=60 * PATIENCE)
        found += page.jobs
        token = page.next_page_token
        if not token:
            return found


def check_runs(report: Report, lanes: list[Lane], runs: dict[str, job_pb2.Run], places: int) -> dict[str, int]:
    """Returns for each lane the turn at which its last one started."""
    bad = [f"{name}: {run.phase} {run.reason}" for name, run in runs.items() if run.phase != "COMPLETED"]
    report.expect(not bad, f"{len(bad)} did not complete, the first of them {bad[:3]}")
    twice = [name for name, run in runs.items() if len(run.attempts) != 1]
    report.expect(not twice, f"{len(twice)} had not one attempt: {twice[:3]}")
    most = most_at_once(runs.values())
    report.expect(most <= places, f"{most} ran at the same time, {places} may")
    report.figures["at the same time"] = f"{most} at most"
    started = {name: run.started.ToNanoseconds() for name, run in runs.items()}
    total = sorted(started, key=lambda name: started[name])
    place = {name: number for number, name in enumerate(total)}
    last: dict[str, int] = {}
    for lane in lanes:
        names = lane.names()
        order = sorted(names, key=lambda name: started[name])
        moved = max(abs(number - names.index(name)) for number, name in enumerate(order))
        if lane.count > 2 * WORKERS:  # of fewer all may be getting ready at once
            bound = min(2 * WORKERS, lane.count // 2)
            report.expect(moved <= bound, f"{lane.prefix}: one started {moved} turns away from its own")
        last[lane.prefix] = max(place[name] for name in names)
        report.figures[f"{lane.prefix} ({lane.count})"] = (
            f"order kept within {moved} turns; the last was number {last[lane.prefix]}"
        )
    return last


def most_at_once(runs: Iterable[job_pb2.Run]) -> int:
    """How many ran at the same time at most, by when each began and ended. Who ends in that instant makes room."""
    changes = [(run.started.ToNanoseconds(), 1) for run in runs]
    changes += [(run.ended.ToNanoseconds(), -1) for run in runs]
    return max(accumulate(change for _, change in sorted(changes)))


def check_turns(report: Report, last: Mapping[str, int]) -> None:
    """Of one client the higher priority goes first; sources take turns, however much one of them wants."""
    for earlier, later in (
        ("client-80", "client-50"),
        ("client-50", "client-20"),
        ("root-50", "client-50"),
        ("spool-50", "client-50"),
    ):
        report.expect(last[earlier] < last[later], f"the last of {earlier} started after that of {later}: {last}")


def answers(report: Report, lines: list[str]) -> str:
    failed = [line for line in lines if line.startswith("failed")]
    report.expect(not failed, f"{len(failed)} calls of Get got no answer: {failed[:3]}")
    late = [float(line.split()[1]) for line in lines if line.startswith("late")]
    good = [float(line) for line in lines if line[0].isdigit()]
    if not good or not late:
        report.expect(False, "Get was never answered")
        return "none"
    half, most = quantile_ms(good, 0.5), quantile_ms(good, 0.99)
    return (
        f"{len(good)} answers, median {half:.1f} ms, p99 {most:.1f} ms, longest {quantile_ms(good, 1):.0f} ms; "
        f"a process that only sleeps woke up late by {quantile_ms(late, 0.99):.1f} ms (p99)"
    )


PARTS: dict[str, Callable[[], Report]] = {
    "jobs": lambda: many_jobs(10_000, 500, 8),
    "watchers": lambda: many_watchers(1000, 200, changes=60, see_them_dropped=True),
    "spool": lambda: spool_storm(10_000),
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Load the daemon, and say how it bore that.")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="only these")
    wrong = False
    for name in parser.parse_args().parts or PARTS:
        report = PARTS[name]()
        report.print(name)
        wrong |= bool(report.wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
