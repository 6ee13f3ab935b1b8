"""Many short jobs on three nodes while everything that can be lost is lost: each run ends once, and nothing is left over.

    python -m tests.slurm.soak --jobs 1000

One node is cut off and comes back, another loses its power and is switched on again, slurmctld is killed once and the daemon
twice, each at a share of the work done. The counts are printed; a count that is not as it has to be is an error.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from joblet.api.v1 import job_pb2
from tests.integration.host import FINAL, Host
from tests.slurm.cluster import Cluster
from tests.slurm.joblet_host import slurm_host
from tests.timing import PATIENCE

LOOK_SECONDS = 0.5
HELD = 0  # the job that is there to be lost with n3: its first attempt would not end
ENDS = ("Completed", "Failed", "Stopped")
LEFT_WITHIN_SECONDS = 60.0
A_JOB_SECONDS = 3.0  # of patience, on a machine that has nothing else to do
AT_LEAST_SECONDS = 240.0


@dataclass(frozen=True)
class Left:
    """What is left over: jobs in Slurm's queue, records of attempts handed over, sandboxes on nodes; each as told to people."""

    in_slurm: tuple[str, ...] = ()
    on_record: tuple[str, ...] = ()
    on_nodes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.in_slurm or self.on_record or self.on_nodes)

    def __str__(self) -> str:
        return "; ".join(
            [
                *(f"in Slurm {one}" for one in self.in_slurm),
                *(f"on record {one}" for one in self.on_record),
                *(f"on a node {one}" for one in self.on_nodes),
            ]
        )


@dataclass
class Figures:
    """What was counted at the end."""

    jobs: int
    seconds: float = 0.0
    phases: Counter[str] = field(default_factory=Counter)
    ends: Counter[int] = field(default_factory=Counter)  # how many runs ended so often
    attempts: Counter[int] = field(default_factory=Counter)  # how many runs had so many
    reasons: Counter[str] = field(default_factory=Counter)  # why attempts ended
    successes: Counter[int] = field(default_factory=Counter)  # how many runs had so many attempts that succeeded
    mute: list[str] = field(default_factory=list)  # attempts that succeeded and whose output is not there
    left: Left = field(default_factory=Left)
    losses: list[str] = field(default_factory=list)
    examples: dict[str, str] = field(default_factory=dict)  # one message for each reason but success

    def faults(self) -> list[str]:
        """What is not as it has to be."""
        found = {
            f"runs that did not complete: {dict(self.phases)}": self.phases != Counter({"COMPLETED": self.jobs}),
            f"runs that ended not once: {dict(self.ends)}": self.ends != Counter({1: self.jobs}),
            f"runs that succeeded not once: {dict(self.successes)}": self.successes != Counter({1: self.jobs}),
            f"output lost: {', '.join(self.mute)}": bool(self.mute),
            f"left over: {self.left}": bool(self.left),
            f"nothing was lost: {dict(self.reasons)}": not self.reasons["NodeLost"],
        }
        return [text for text, wrong in found.items() if wrong]

    def lines(self) -> list[str]:
        return [
            f"jobs                    {self.jobs} in {self.seconds:.1f} s",
            f"losses                  {', '.join(self.losses)}",
            f"phases of runs          {dict(self.phases)}",
            f"ends of each run        {dict(self.ends)}",
            f"successes of each run   {dict(self.successes)}",
            f"attempts of each run    {dict(sorted(self.attempts.items()))}",
            f"reasons of attempts     {dict(self.reasons)}",
            f"outputs lost            {len(self.mute)}",
            f"left in Slurm           {len(self.left.in_slurm)}",
            f"left on record          {len(self.left.on_record)}",
            f"left on nodes           {len(self.left.on_nodes)}",
            *(f"for example             {text}" for text in self.examples.values()),
        ]


def soak(jobs: int, tell: Callable[[str], None] = lambda _: None) -> Figures:
    """Run it once, on a cluster of its own."""
    with Cluster(nodes=3, cpus=8) as cluster, slurm_host(cluster) as host:
        figures = Figures(jobs)
        began = time.monotonic()
        host.apply("\n---\n".join(manifest(number) for number in range(jobs)))
        for share, what, lose in losses(cluster, host):
            wait_for(host, jobs, share, tell)
            tell(f"{what} at {share:.0%}")
            lose()
            if cluster.answers():
                cluster.resume()
            figures.losses.append(what)
        wait_for(host, jobs, 1.0, tell)
        figures.seconds = time.monotonic() - began
        count(figures, cluster, host)
        return figures


def manifest(number: int) -> str:
    if number == HELD:
        return (
            f"apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: soak-{number:04d}}}\n"
            "spec:\n  script: '[ $JOBLET_ATTEMPT -gt 1 ] || sleep 6000; echo done'\n"
            "  retry: {limit: 9, initial: 200ms, max: 2s}\n  slurm: {node: n3}\n"
        )
    return (
        f"apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: soak-{number:04d}}}\n"
        "spec:\n  script: sleep 0.2; echo done\n  retry: {limit: 9, initial: 200ms, max: 2s}\n"
    )


def losses(cluster: Cluster, host: Host) -> list[tuple[float, str, Callable[[], None]]]:
    """At which share of the work what is lost, or comes back."""

    def kill_daemon() -> None:
        host.kill()
        host.start(within=60)

    def kill_n3() -> None:
        host.running(f"soak-{HELD:04d}", within=AT_LEAST_SECONDS)
        cluster.kill("n3")

    return [
        (0.05, "n2 cut off", lambda: cluster.cut_off("n2")),
        (0.15, "slurmctld killed", cluster.kill_slurmctld),
        (0.15, "slurmctld started", cluster.start_slurmctld),
        (0.25, "daemon killed", kill_daemon),
        (0.40, "n3 killed", kill_n3),
        (0.55, "n2 back", lambda: cluster.reconnect("n2")),
        (0.65, "daemon killed again", kill_daemon),
        (0.75, "n3 started", lambda: cluster.start("n3")),
    ]


def wait_for(host: Host, jobs: int, share: float, tell: Callable[[str], None]) -> None:
    """Until so much of the work is done."""
    deadline = time.monotonic() + max(AT_LEAST_SECONDS, jobs * A_JOB_SECONDS) * PATIENCE
    last = -1
    while (done := finished(host)) < jobs * share:
        if time.monotonic() > deadline:
            raise AssertionError(f"{done} of {jobs} runs are over\n{host.log_tail()}")
        if done // 50 != last // 50:
            tell(f"{done} of {jobs}")
            last = done
        time.sleep(LOOK_SECONDS)


def all_jobs(host: Host) -> list[job_pb2.Job]:
    found: list[job_pb2.Job] = []
    token = ""
    while True:
        request = job_pb2.ListRequest(page_size=1000, page_token=token)
        answer = host.jobs.List(request, timeout=60 * PATIENCE)
        found += answer.jobs
        if not (token := answer.next_page_token):
            return found


def finished(host: Host) -> int:
    return sum(bool(job.runs) and job.runs[0].phase in FINAL for job in all_jobs(host))


def count(figures: Figures, cluster: Cluster, host: Host) -> None:
    for job in all_jobs(host):
        run = job.runs[0]
        figures.phases[run.phase] += 1
        figures.attempts[len(run.attempts)] += 1
        figures.reasons.update(attempt.reason for attempt in run.attempts)
        figures.examples |= {one.reason: f"{one.reason}: {one.message}" for one in run.attempts if one.exit_code}
        figures.examples |= {
            one.reason: f"{one.reason}: {one.message}" for one in run.attempts if not one.HasField("exit_code")
        }
        figures.successes[sum(attempt.reason == "Completed" for attempt in run.attempts)] += 1
        figures.mute += [
            one.id for one in run.attempts if one.reason == "Completed" and not has_output(cluster, one.id)
        ]
    ends: Counter[str] = Counter()
    for event in host.jobs.Events(job_pb2.EventsRequest(), timeout=60 * PATIENCE):
        if event.reason in ENDS and event.run_id:
            ends[event.run_id] += event.count
    figures.ends = Counter(ends.values())
    figures.left = left_after(cluster, host, within=LEFT_WITHIN_SECONDS * PATIENCE)


def has_output(cluster: Cluster, attempt_id: str) -> bool:
    log = Path(cluster.shared_path, "attempts", attempt_id, "log")
    return log.exists() and b"done" in log.read_bytes()


def left_after(cluster: Cluster, host: Host, *, within: float) -> Left:
    """Once nothing is left over, or what is when that time is up."""
    deadline = time.monotonic() + within
    while (left := look_for_left(cluster, host)) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    return left


def look_for_left(cluster: Cluster, host: Host) -> Left:
    records = Path(host.root, "state/slurm/handed")
    return Left(
        tuple(cluster.slurm("squeue", "--noheader", "--format=%i %T %j %N %r %M").splitlines()),
        tuple(described(path, Path(cluster.shared_path, "attempts", path.stem)) for path in records.iterdir()),
        tuple(live_on_nodes(cluster)),
    )


def described(record: Path, attempt: Path) -> str:
    """A record that is still there: what was noted of it, and what its node has told."""
    try:
        job = json.loads(record.read_bytes())["job_id"]
        told = sorted(path.name for path in attempt.iterdir()) if attempt.is_dir() else []
    except FileNotFoundError:
        return f"{record.stem} (gone meanwhile)"
    return f"{record.stem} (Slurm job {job or 'none'}; told: {', '.join(told) or 'nothing'})"


def live_on_nodes(cluster: Cluster) -> list[str]:
    """Sandboxes that still live, and why they are not swept away: what a power cut left goes with the next job there."""
    found = []
    for node in cluster.names:
        swept = cluster.run_on(node, [*cluster.joblet_command, "sandbox-exec", "--sweep"], check=False)
        why = f" ({swept.stderr.strip() or 'its owner lives'})"
        found += [
            f"{node} {path.name}{why}" for path in cluster.path_on(node, "/opt/joblet/state/slurm/live").glob("*")
        ]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--jobs", type=int, default=1000)
    jobs = parser.parse_args().jobs
    if os.geteuid() != 0:
        sys.exit("make slurm-soak needs root")
    began = time.monotonic()
    figures = soak(jobs, lambda text: print(f"[{time.monotonic() - began:6.1f} s] {text}", flush=True))
    print("\n".join(figures.lines()))
    for fault in figures.faults():
        print(f"FAULT: {fault}", file=sys.stderr)
    return 1 if figures.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
