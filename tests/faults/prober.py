"""Asks the daemon the same small question now and then, and writes how long each answer took: ``python -m tests.faults.prober``.

In between it sleeps, and writes how much too late it woke up: what a process that asks for nothing waits for a processor.
A process of its own, so that what the load generator does with its interpreter is not measured.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from joblet.api.channel import open_channel
from joblet.api.v1 import job_pb2, job_pb2_grpc
from joblet.config import load_client_config
from tests.integration.host import eventually

PAUSE_SECONDS = 0.05


def main() -> None:
    config, name, target = sys.argv[1:]
    with open_channel(load_client_config(config, {}).nodes["default"]) as channel, open(target, "w") as stream:
        stub = job_pb2_grpc.JobServiceStub(channel)
        while True:
            begin = time.perf_counter()
            try:
                stub.Get(job_pb2.GetRequest(ref=name), timeout=60)
            except grpc.RpcError as error:
                print(f"failed {error.code().name}", file=stream, flush=True)
            else:
                print(f"{(time.perf_counter() - begin) * 1000:.2f}", file=stream, flush=True)
            begin = time.perf_counter()
            time.sleep(PAUSE_SECONDS)
            print(f"late {(time.perf_counter() - begin - PAUSE_SECONDS) * 1000:.2f}", file=stream, flush=True)


@contextmanager
def probing(root: Path, name: str) -> Iterator[Path]:
    """A prober that asks for that job. Yields the file with a line for each answer: milliseconds, or why there is none."""
    target = root / "probe.txt"
    config = str(root / "config/rnx-config.yml")
    process = subprocess.Popen([sys.executable, "-m", "tests.faults.prober", config, name, str(target)])
    try:
        eventually(lambda: target.exists() and target.read_text(), within=60, what="its first answer")
        yield target
    finally:
        process.kill()
        process.wait()


def quantile_ms(times: list[float], share: float) -> float:
    """The time below which that share of them stayed."""
    times = sorted(times)
    return times[min(int(len(times) * share), len(times) - 1)]


if __name__ == "__main__":
    main()
