"""Limits hold against jobs that try to exceed them, and the record says so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from joblet.api.v1 import job_pb2
from tests.integration.host import Host, eventually, job_host
from tests.timing import PATIENCE

TRIES = 10


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host(configure=show_cgroups) as host:
        yield host


def show_cgroups(content: dict[str, Any]) -> None:
    content["cgroup"]["namespaceMount"] = "/sys/fs/cgroup"


def limit_of(run: job_pb2.Run, name: str) -> job_pb2.Limit:
    return next(limit for limit in run.attempts[-1].limits if limit.name == name)


def test_a_memory_hog_ends_oom_killed_with_its_peak_on_record(host: Host) -> None:
    host.apply("""
        apiVersion: joblet/v1
        kind: Job
        metadata: {name: hog}
        spec:
          # A shell variable that doubles up to 512 MiB.
          script: |
            x=0123456789abcdef
            for i in $(seq 25); do x=$x$x; done
            echo survived
          limits: {memory: 64Mi}
    """)
    run = host.finished("hog")
    assert (run.phase, run.reason) == ("FAILED", "OOMKilled")
    usage = run.attempts[-1].usage
    assert 48 << 20 < usage.memory_peak_bytes <= 64 << 20
    assert usage.oom_kills >= 1
    assert limit_of(run, "memory").enforced
    assert host.log("hog") == b""


def test_a_busy_loop_gets_the_share_of_cpu_that_it_was_given(host: Host) -> None:
    shares: list[float] = []
    throttled = 0.0
    while not shares or (not (0.17 <= shares[-1] <= 0.23 and throttled > 0.1) and len(shares) < TRIES):
        share, throttled = share_of_a_busy_loop(host, f"busy-{len(shares)}")
        shares.append(share)
    assert 0.17 <= shares[-1] <= 0.23, shares
    assert throttled > 0.1  # 3.2 seconds, less what other work on this host took from it


def share_of_a_busy_loop(host: Host, name: str) -> tuple[float, float]:
    """Of a core, between start and end as they were noted: late, now and then, where others keep the host busy; and for how many
    seconds it was held back."""
    host.apply(f"""
        apiVersion: joblet/v1
        kind: Job
        metadata: {{name: {name}}}
        spec:
          command: [sh, -c, "while :; do :; done"]
          limits: {{cpu: 20%}}
          timeout: 4s
          stop: {{grace: 0s}}
    """)
    run = host.finished(name)
    assert run.reason == "TimedOut"
    attempt = run.attempts[-1]
    share = attempt.usage.cpu_seconds / (attempt.ended.ToNanoseconds() - attempt.started.ToNanoseconds()) * 1e9
    return share, attempt.usage.throttled_seconds


def test_a_fork_bomb_stays_inside_its_number_of_processes(host: Host) -> None:
    host.apply("""
        apiVersion: joblet/v1
        kind: Job
        metadata: {name: bomb}
        spec:
          script: |
            #!/bin/sh
            while :; do (sleep 60 & sleep 60 & sleep 60 &) 2>/dev/null; sleep 0.05; done
          limits: {pids: 32, memory: 256Mi}
          stop: {grace: 0s}
    """)
    host.running("bomb")
    # It reaches its limit, and never exceeds it.
    eventually(lambda: host.run("bomb").attempts[-1].usage.pids >= 32, what="32 processes")
    for _ in range(5):
        assert host.run("bomb").attempts[-1].usage.pids <= 32
    # A neighbour does not notice.
    host.apply("""
        apiVersion: joblet/v1
        kind: Job
        metadata: {name: neighbour}
        spec: {command: [echo, well]}
    """)
    assert host.finished("neighbour").phase == "COMPLETED"
    host.jobs.Stop(job_pb2.StopRequest(ref="bomb", force=True))
    assert host.finished("bomb").phase in ("STOPPED", "FAILED")


def test_a_command_that_ignores_sigterm_is_killed_after_timeout_and_grace(host: Host) -> None:
    timeout = 1.5 * PATIENCE  # in which a shell gets to its trap, also on a busy machine
    host.apply(f"""
        apiVersion: joblet/v1
        kind: Job
        metadata: {{name: stubborn}}
        spec:
          script: |
            trap '' TERM
            i=0; while [ $i -lt 6000 ]; do sleep 0.1; i=$((i+1)); done
            echo survived
          timeout: {timeout * 1000:.0f}ms
          stop: {{grace: 1s}}
    """)
    run = host.finished("stubborn")
    assert (run.phase, run.reason, run.signal) == ("FAILED", "TimedOut", "SIGKILL")
    seconds = (run.ended.ToNanoseconds() - run.started.ToNanoseconds()) / 1e9
    # Timeout and grace, less what "started" was noted late, once the exec was seen.
    assert timeout + 0.5 <= seconds, seconds
    assert host.log("stubborn") == b""


def test_a_limit_on_writes_holds_on_a_workspace_of_limited_size(host: Host) -> None:
    host.apply("""
        apiVersion: joblet/v1
        kind: Job
        metadata: {name: writer}
        spec:
          command: [dd, if=/dev/zero, of=/work/file, bs=1M, count=8, oflag=direct]
          limits: {io: {write: 4Mi}, disk: 32Mi}
    """)
    run = host.finished("writer")
    assert run.phase == "COMPLETED", host.log("writer")
    assert seconds_of_dd(host.log("writer", stream="stderr")) >= 1.5, "8 MiB at 4 MiB a second"
    assert run.attempts[-1].usage.io_write_bytes >= 8 << 20


def seconds_of_dd(said: bytes) -> float:
    """As it measured itself: what the record has begins when the command was seen to run, late on a busy machine."""
    found = re.search(rb"copied, ([0-9.e+-]+) s", said)
    assert found, said
    return float(found[1])


def test_every_limit_is_shown_as_asked_and_as_read_back(host: Host) -> None:
    host.apply("""
        apiVersion: joblet/v1
        kind: Job
        metadata: {name: limited}
        spec:
          command: [sleep, "60"]
          limits: {cpu: 50%, memory: 64Mi, pids: 16}
          stop: {grace: 0s}
    """)
    run = host.running("limited")
    limits = {limit.name: limit for limit in host.run("limited").attempts[-1].limits}
    assert {"cpu", "memory", "swap", "pids"} <= set(limits)
    assert all(limit.enforced for limit in limits.values()), limits
    assert limits["memory"].asked == "64Mi" and limits["memory"].effective in ("64Mi", "67108864")
    assert run.phase == "RUNNING"


def test_a_changed_limit_of_a_running_job_changes_in_place(host: Host) -> None:
    manifest = """
        apiVersion: joblet/v1
        kind: Job
        metadata: {{name: tuned}}
        spec:
          command: [sleep, "60"]
          limits: {{memory: {memory}, pids: 16}}
          stop: {{grace: 0s}}
    """
    host.apply(manifest.format(memory="64Mi"))
    before = host.running("tuned")
    (result,) = host.apply(manifest.format(memory="96Mi"))
    assert result.action == "configured" and "in place" in result.consequence
    after = host.watch_until("tuned", lambda run: run.generation == result.generation)
    assert after.id == before.id and len(after.attempts) == 1
    eventually(lambda: "96Mi" in str(limit_of(host.run("tuned"), "memory")), what="the new limit read back")


def test_a_limited_workspace_is_full_in_the_job_and_not_on_the_host(host: Host) -> None:
    host.apply("""
        apiVersion: joblet/v1
        kind: Job
        metadata: {name: filler}
        spec:
          script: |
            #!/bin/sh
            dd if=/dev/zero of=/work/big bs=1M count=64 2>&1 | grep -o 'No space left on device'
          limits: {disk: 16Mi}
    """)
    assert host.finished("filler").phase == "COMPLETED"
    assert host.log("filler") == b"No space left on device\n"


def test_where_the_configuration_shows_cgroups_a_job_reads_its_own_limits_and_changes_none(host: Host) -> None:
    host.apply("""
        apiVersion: joblet/v1
        kind: Job
        metadata: {name: reader}
        spec:
          script: |
            cd /sys/fs/cgroup
            cat memory.max 2>/dev/null || cat memory/memory.limit_in_bytes
            cat pids.max 2>/dev/null || cat pids/pids.max
            find . -name 'job-*' -o -name '*.service' -o -name inits
            for file in $(find . -type f); do (echo 1 >"$file") 2>/dev/null && echo "wrote $file"; done
            mkdir own 2>/dev/null && echo made
            grep -c '/job-' /proc/self/mountinfo || true
          limits: {memory: 64Mi, pids: 32}
    """)
    assert host.finished("reader").phase == "COMPLETED", host.log("reader")
    assert host.log("reader").split() == [str(64 << 20).encode(), b"32", b"0"]
