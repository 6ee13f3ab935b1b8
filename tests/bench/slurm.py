"""Jobs through Joblet to Slurm beside bare ``sbatch`` with the same scripts, on one cluster of three nodes, in turns.

The peer is a loop of sbatch on the controller, each with the script that Joblet submits for such a job; it is done when Slurm's
queue is empty. Joblet is done when each run's end is on record. Latency is that of one submission to an idle cluster.
"""

from __future__ import annotations

import itertools
import shlex
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from joblet.api.v1 import job_pb2
from joblet.manifest import jobs_of, read_manifests
from jobletd.executor import AttemptRequest
from jobletd.executor.slurm import SlurmSettings
from jobletd.executor.slurm.client import Submission
from jobletd.executor.slurm.commands import CommandClient, options
from jobletd.executor.slurm.submission import request_document, submission_of
from jobletd.executor.slurm.submitting import hand_over
from jobletd.executor.slurm.tracking import Tracked
from jobletd.model import AttemptId
from tests.bench.report import BenchResult, Table, at_least
from tests.integration.host import Host
from tests.slurm.cluster import Cluster
from tests.slurm.joblet_host import slurm_host

JOBS = 20
ROUNDS = 2
LATENCIES = 10
AT_LEAST = 0.8
LOOK_SECONDS = 0.05
_numbers = itertools.count(1)


def run(jobs: int = JOBS, rounds: int = ROUNDS) -> BenchResult:
    with Cluster(nodes=3, cpus=64) as cluster, slurm_host(cluster, shortestPoll="500ms") as host:
        assert cluster.shared_directory is not None
        settings = SlurmSettings(
            directory=f"{host.root}/bench",
            shared_directory=cluster.shared_directory,
            launcher=tuple(cluster.joblet_command),
            prefix=cluster.within(cluster.controller),
            environment=cluster.environment,
        )
        bare_ms, ours_ms = latencies(settings, cluster)
        rates = [(by_sbatch(cluster, settings, jobs), by_joblet(host, jobs)) for _ in range(rounds)]
    ratios = [ours / bare for bare, ours in rates]
    bare, ours = (statistics.median(rate) for rate in zip(*rates, strict=True))
    ratio = statistics.median(ratios)
    lines = (
        f"joblet: {ours:.2f} jobs a second to Slurm, apply to recorded end",
        (
            f"ratio to sbatch: {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})   "
            f"(sbatch in a loop, the same scripts: {bare:.2f} jobs a second)"
        ),
        f"submit latency: {ours_ms:.1f} ms, record and directory included   (sbatch: {bare_ms:.1f} ms)",
    )
    print("\n".join(lines))
    rows = (
        ("Joblet", f"{ours:.2f}", f"{ours_ms:.1f} ms"),
        ("sbatch in a loop, the same scripts", f"{bare:.2f}", f"{bare_ms:.1f} ms"),
    )
    return BenchResult(
        name="slurm",
        title="Through Slurm",
        about=f"{jobs} jobs of `true` on a cluster of three nodes made of namespaces, {rounds} rounds in turns.",
        summary=lines,
        tables=(Table("Jobs to Slurm", ("by", "jobs a second", "a submission takes"), rows),),
        budgets=(at_least("jobs a second through Slurm, in terms of bare sbatch", AT_LEAST, ratio),),
    )


def submission(settings: SlurmSettings) -> tuple[Tracked, Submission]:
    """What our executor would submit for a job that does nothing."""
    number = next(_numbers)
    text = "apiVersion: joblet/v1\nkind: Job\nmetadata: {name: bench}\nspec: {command: ['/bin/true']}\n"
    manifest = jobs_of(read_manifests(text.encode(), filename="bench.yml"))[0]
    attempt_id = AttemptId(f"bench-run{number:05d}-1")
    request = AttemptRequest(attempt_id, f"run{number:05d}", 1, manifest, None)
    document = request_document(request, settings, time.time_ns())
    return Tracked(attempt_id, document, manifest, 0.0), submission_of(document, manifest, settings)


def latencies(settings: SlurmSettings, cluster: Cluster) -> tuple[float, float]:
    """Milliseconds, of sbatch and of ours, in turns."""
    client = CommandClient(settings)
    bare, ours = [], []
    for _ in range(LATENCIES):
        tracked, wanted = submission(settings)
        begin = time.perf_counter()
        hand_over(client, settings, tracked, was_listed=False)
        ours.append((time.perf_counter() - begin) * 1000)
        _, wanted = submission(settings)
        begin = time.perf_counter()
        sbatch(settings, wanted)
        bare.append((time.perf_counter() - begin) * 1000)
    wait_until_empty(cluster)
    return statistics.median(bare), statistics.median(ours)


def sbatch(settings: SlurmSettings, wanted: Submission) -> None:
    subprocess.run(
        [*settings.prefix, "sbatch", *without_output(wanted)],
        input=wanted.script,
        text=True,
        check=True,
        stdout=subprocess.DEVNULL,
        cwd="/",
        env={"PATH": "/usr/bin:/bin", **settings.environment},
    )


def without_output(wanted: Submission) -> list[str]:
    """Its directory is not made by whoever submits it bare."""
    return ["--output=/dev/null" if one.startswith("--output=") else one for one in options(wanted)]


def by_sbatch(cluster: Cluster, settings: SlurmSettings, jobs: int) -> float:
    """Jobs a second: submitted one after the other, until Slurm has none any more."""
    with tempfile.TemporaryDirectory(prefix="joblet-bench-") as directory:
        lines = ["set -eu"]
        for number in range(jobs):
            _, wanted = submission(settings)
            script = Path(directory, f"{number}.sh")
            script.write_text(wanted.script)
            lines.append(f"sbatch {shlex.join(without_output(wanted))} <{script} >/dev/null")
        loop = Path(directory, "loop.sh")
        loop.write_text("\n".join(lines) + "\n")
        begin = time.perf_counter()
        cluster.run_on(cluster.controller, ["sh", str(loop)], timeout=600)
        wait_until_empty(cluster)
        return jobs / (time.perf_counter() - begin)


def wait_until_empty(cluster: Cluster) -> None:
    while cluster.slurm("squeue", "--noheader"):
        time.sleep(LOOK_SECONDS)


def by_joblet(host: Host, jobs: int) -> float:
    """Jobs a second: applied in one request, until each run's end is on record."""
    names = [f"bench-{next(_numbers)}" for _ in range(jobs)]
    head = "apiVersion: joblet/v1\nkind: Job\n"
    text = "---\n".join(f"{head}metadata: {{name: {name}}}\nspec: {{command: ['/bin/true']}}\n" for name in names)
    stream = host.jobs.Watch(job_pb2.WatchRequest())
    next(iter(stream))
    begin = time.perf_counter()
    host.jobs.Apply(job_pb2.ApplyRequest(manifest=text.encode()))
    left = set(names)
    for event in stream:
        if event.job.runs and event.job.runs[0].phase == "COMPLETED":
            left.discard(event.job.name)
            if not left:
                break
    seconds = time.perf_counter() - begin
    stream.cancel()
    return jobs / seconds
