"""What a job on a node uses while it runs, as its node notes it: seen by whoever asks the daemon that handed it to Slurm."""

from __future__ import annotations

import re

from joblet.api.v1 import monitor_pb2, monitor_pb2_grpc
from tests.integration.host import Host, eventually
from tests.timing import PATIENCE


def usage_is_seen(host: Host) -> None:
    """In its status and in the list of all that run, there with a rate; and no more once it has ended."""
    spin = "script: 'x=$(head -c 8M /dev/zero | tr \\\\0 x); while :; do :; done'\n  limits: {cpu: 20%, memory: 96Mi}"
    metadata = "apiVersion: joblet/v1\nkind: Job\nmetadata: {name: uses}"
    host.apply(f"{metadata}\nspec:\n  {spin}\n  stop: {{grace: 0s}}\n")
    host.running("uses", within=60)
    attempt = eventually(
        lambda: next((one for one in host.run("uses").attempts if one.usage.memory_bytes > 8 << 20), None),
        within=60,
        what="its memory",
    )
    assert attempt is not None
    assert attempt.usage.memory_bytes < 96 << 20 and attempt.usage.cpu_seconds > 0 and attempt.usage.pids > 0
    assert attempt.usage_read.ToNanoseconds() >= attempt.started.ToNanoseconds()
    status = host.rnx("status", "uses").out
    assert re.search(r"^Memory: +[0-9.]+ MiB$", status, re.MULTILINE), status
    assert re.search(r"^Usage Read: +20", status, re.MULTILINE), status
    host.client("viewer")
    stub = monitor_pb2_grpc.MonitorServiceStub(host.channels["viewer"])
    stream = stub.WatchUsage(monitor_pb2.WatchUsageRequest(interval_ms=500), timeout=60 * PATIENCE)
    used = next(one for look in stream for one in look.jobs if one.name == "uses")
    stream.cancel()
    assert 1 < used.cpu_percent < 40 and used.usage.memory_bytes > 8 << 20
    host.rnx("stop", "uses")
    ended = host.finished("uses", within=60).attempts[-1]
    assert not ended.HasField("usage_read") and ended.usage.memory_peak_bytes >= used.usage.memory_bytes
