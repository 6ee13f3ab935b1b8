"""``joblet cleanup``: nothing of ours is left, and the next daemon knows how its jobs ended."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.host import BIN, Ended, Host, job_host
from tests.integration.joblet_command import joblet
from tests.timing import PATIENCE

VOLUME = "{apiVersion: joblet/v1, kind: Volume, metadata: {name: fast}, spec: {size: 4Mi, type: memory}}"
HEAVY = """
    {apiVersion: joblet/v1, kind: Job, metadata: {name: heavy},
     spec: {command: [sleep, "1000"], limits: {disk: 64Mi, memory: 64Mi}, volumes: [{name: fast, path: /fast}]}}
"""
KINDS = ("process", "cgroup", "mount", "loop device", "interface", "packet filter")
CONNECTED = """
    {apiVersion: joblet/v1, kind: Job, metadata: {name: connected},
     spec: {command: [sleep, "1000"], isolation: {network: bridge}}}
"""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host() as host:
        yield host


def cleanup(host: Host, *options: str) -> Ended:
    return joblet("cleanup", *options, "--config", host.config)


def test_it_is_refused_while_a_daemon_runs(host: Host) -> None:
    refused = subprocess.run(
        [BIN / "joblet", "cleanup", "--config", host.config],
        capture_output=True,
        text=True,
        timeout=60 * PATIENCE,
        check=False,
    )
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "the daemon runs" in refused.stderr and "systemctl stop joblet" in refused.stderr


def kinds(shown: Ended) -> set[str]:
    """What a dry run has found."""
    lines = [line for line in shown.out.splitlines() if line.startswith("would remove ")]
    return {kind for kind in KINDS if any(line.startswith(f"would remove {kind} ") for line in lines)}


def test_a_dry_run_shows_all_and_changes_nothing_then_all_is_removed(host: Host) -> None:
    host.apply(VOLUME)
    host.apply(HEAVY)
    run = host.running("heavy")
    host.kill()
    for _ in range(2):
        shown = cleanup(host, "--dry-run")
        assert kinds(shown) == {"process", "cgroup", "mount", "loop device"}, shown.out + shown.err
        assert "(sleep)" in shown.out
    done = cleanup(host)
    assert (done.status, done.err) == (0, ""), done.out
    assert cleanup(host, "--dry-run").out == "nothing is left\n"
    assert str(host.root) not in Path("/proc/self/mountinfo").read_text()
    assert not os.path.exists(host.cgroup_base)

    host.start()
    ended = host.finished("heavy")
    assert (ended.id, ended.phase, ended.signal) == (run.id, "FAILED", "SIGKILL")
    for name in ("heavy", "volume/fast"):  # the volume is declared, so the new daemon made it again
        assert host.rnx("delete", name).status == 0


@pytest.mark.native_only(reason="the guest's kernel has no nf_tables")
def test_interfaces_and_rules_are_removed_too(host: Host) -> None:
    """The one test whose bridge is in the network of whoever runs the tests: what is there is found in /sys, which is theirs."""
    host.apply(CONNECTED)
    host.running("connected")
    host.kill()
    assert {"interface", "packet filter"} <= kinds(cleanup(host, "--dry-run"))
    assert cleanup(host).status == 0
    assert cleanup(host, "--dry-run").out == "nothing is left\n"
    host.start()
    assert host.finished("connected").phase == "FAILED"
    assert host.rnx("delete", "connected").status == 0
