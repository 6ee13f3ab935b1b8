"""``joblet cleanup``: nothing of ours is left, and the next daemon knows how its jobs ended."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.host import BIN, Host, job_host
from tests.timing import PATIENCE

JOBS = """
    {apiVersion: joblet/v1, kind: Volume, metadata: {name: fast}, spec: {size: 4Mi, type: memory}}
    ---
    {apiVersion: joblet/v1, kind: Job, metadata: {name: heavy},
     spec: {command: [sleep, "1000"], limits: {disk: 64Mi, memory: 64Mi}, isolation: {network: bridge},
            volumes: [{name: fast, path: /fast}]}}
"""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host() as host:
        yield host


def cleanup(host: Host, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "joblet", "cleanup", *options, "--config", host.config],
        capture_output=True,
        text=True,
        timeout=60 * PATIENCE,
        check=False,
    )


def test_it_is_refused_while_a_daemon_runs(host: Host) -> None:
    refused = cleanup(host)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "the daemon runs" in refused.stderr and "systemctl stop joblet" in refused.stderr


def test_a_dry_run_shows_all_and_changes_nothing_then_all_is_removed(host: Host) -> None:
    host.apply(JOBS)
    run = host.running("heavy")
    host.kill()
    shown = cleanup(host, "--dry-run")
    lines = shown.stdout.splitlines()
    for kind in ("process", "cgroup", "mount", "loop device", "interface", "packet filter"):
        assert any(line.startswith(f"would remove {kind} ") for line in lines), f"{kind}\n{shown.stdout}{shown.stderr}"
    assert any("(sleep)" in line for line in lines)
    assert [line for line in cleanup(host, "--dry-run").stdout.splitlines() if "sleep" in line], "it was changed"

    done = cleanup(host)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert cleanup(host, "--dry-run").stdout == "nothing is left\n"
    assert str(host.root) not in Path("/proc/self/mountinfo").read_text()
    assert not os.path.exists(host.cgroup_base)

    host.start()
    ended = host.finished("heavy")
    assert (ended.id, ended.phase, ended.signal) == (run.id, "FAILED", "SIGKILL")
    for name in ("heavy", "volume/fast"):  # the volume is declared, so the new daemon made it again
        assert host.rnx("delete", name).status == 0
