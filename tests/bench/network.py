"""What a network costs a launch: ``/bin/true`` on none and on bridge, from apply to recorded end; and the attach alone.

Everything happens in network namespaces made for it.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from ipaddress import IPv4Network
from pathlib import Path

from joblet.api.v1 import job_pb2
from jobletd.executor.local.networking.host_networks import HostNetworks, NetworkSettings
from tests.bench.report import BenchResult, Plot, Series, print_ratios, timing_table
from tests.bench.rounds import alternate
from tests.integration.host import Host, job_host
from tests.integration.network_stage import stage

ROUNDS = 40
WITHIN_SECONDS = 20.0
ATTACHES = 100
JOB = (
    "apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: {name}}}\n"
    "spec: {{command: ['/bin/true'], isolation: {{network: {network}}}}}\n"
)


def run() -> BenchResult:
    with stage() as place:
        with job_host(within=place.within) as host:
            count = iter(range(10**6))
            timings = alternate(
                {
                    "bridge": lambda: run_job(host, f"on-bridge-{next(count)}", "bridge"),
                    "none": lambda: run_job(host, f"on-none-{next(count)}", "none"),
                },
                rounds=ROUNDS,
                within_seconds=WITHIN_SECONDS,
            )
        times = place.host.call(attach_ms)
    lines = print_ratios("bridge", timings)
    attach = (
        f"attach: {statistics.median(times):.2f} ms median, {max(times):.2f} ms at most, of {ATTACHES} at once there"
    )
    print(attach)
    return BenchResult(
        name="network",
        title="A job's network",
        about="`/bin/true` on the bridge network and without a network, from apply to its recorded end; and what it takes "
        f"to attach one job to the bridge by itself, with up to {ATTACHES} there.",
        summary=(*lines[1:], attach),
        tables=(timing_table("From apply to the recorded end", "bridge", timings),),
        plots=(_attach_plot(times),),
    )


def _attach_plot(times: list[float]) -> Plot:
    """In tens, as single ones are mostly noise."""
    means = tuple((number + 5.0, statistics.median(times[number : number + 10])) for number in range(0, ATTACHES, 10))
    return Plot("network-attach", "Attaching a job to the bridge", "jobs attached", "ms", (Series("attach", means),))


def run_job(host: Host, name: str, network: str) -> None:
    """Apply, and wait until the end is on record."""
    stream = host.jobs.Watch(job_pb2.WatchRequest(ref=""))
    next(iter(stream))
    host.jobs.Apply(job_pb2.ApplyRequest(manifest=JOB.format(name=name, network=network).encode()))
    for event in stream:
        if event.job.name == name and event.job.runs and event.job.runs[0].phase in ("COMPLETED", "FAILED"):
            assert event.job.runs[0].phase == "COMPLETED", event.job.runs[0]
            break
    stream.cancel()


def attach_ms() -> list[float]:
    """Milliseconds of each attach, with all the others still there."""
    with tempfile.TemporaryDirectory(prefix="joblet-bench-") as directory:
        settings = NetworkSettings(directory, Path(directory, "run"), IPv4Network("10.213.0.0/16"), (), ())
        return asyncio.run(_attach(settings))


async def _attach(settings: NetworkSettings) -> list[float]:
    from jobletd.executor.local.networking.links import Bandwidth

    networks = HostNetworks(settings)
    await networks.start()
    times: list[float] = []
    held: list[int] = []
    lan = networks.lan_named("bridge")
    await networks.ensure(lan)
    for number in range(ATTACHES):
        begin = time.perf_counter()
        held.append((await networks.connect(lan, f"bench-{number}-1", "bench", Bandwidth()))[0])
        times.append((time.perf_counter() - begin) * 1000)
    for fd in held:
        os.close(fd)
    for number in range(ATTACHES):
        networks.disconnect(f"bench-{number}-1")
    await networks.close()
    return times
