"""The database is damaged or gone: the daemon starts from the last backup or not at all, and nothing runs twice."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from joblet.api.v1 import job_pb2, node_pb2, node_pb2_grpc
from tests.integration.host import BIN, PATIENCE, Host, eventually, job_host

WAITING = """
    apiVersion: joblet/v1
    kind: Job
    metadata: {{name: {name}}}
    spec:
      script: |
        echo begin
        i=0; while [ ! -e /work/go ] && [ $i -lt 6000 ]; do sleep 0.1; i=$((i+1)); done
        exit 7
"""
ONCE = "{{apiVersion: joblet/v1, kind: Job, metadata: {{name: {name}}}, spec: {{command: [echo, once], retry: {{limit: 3}}}}}}"


@pytest.fixture
def host() -> Iterator[Host]:
    with job_host() as host:
        yield host


def let_go(host: Host, name: str) -> None:
    (state,) = (host.root / "state/attempts").glob(f"{name}-*/state")
    with open(f"/proc/{state.read_text().split()[1]}/root/work/go", "w"):
        pass


def damage(host: Host) -> None:
    """All of it, so that it does not matter what lies in the log before it."""
    for suffix in ("", "-wal"):
        path = host.root / f"state/joblet.db{suffix}"
        if path.exists():
            path.write_bytes(b"\xff" * path.stat().st_size)


def joblet(host: Host, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "joblet"), *arguments, "--config", str(host.config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60 * PATIENCE, check=False)


def conditions(host: Host) -> dict[str, job_pb2.Condition]:
    assert host.jobs is not None
    node = node_pb2_grpc.NodeServiceStub(host.channels["admin"]).GetNode(
        node_pb2.GetNodeRequest(), timeout=60 * PATIENCE
    )
    return {one.type: one for one in node.conditions}


def own_backups(host: Host) -> list[Path]:
    return sorted((host.root / "state/backups").glob("*.joblet-backup"))


def test_the_daemon_starts_from_its_own_backup_and_runs_nothing_twice(host: Host) -> None:
    eventually(lambda: own_backups(host), what="the first backup of the daemon itself")
    host.apply(WAITING.format(name="newer"))  # than the backup
    (host.spool / "spooled.yml").write_text(ONCE.format(name="spooled"))
    eventually(lambda: (host.spool / "status/spooled.yml").exists(), what="the spooled job")
    ended, running = host.finished("spooled"), host.running("newer")
    host.kill()
    damage(host)
    damaged = (host.root / "state/joblet.db").read_bytes()
    host.start()
    # What runs is adopted with its run.
    assert (host.run("newer").id, host.run("newer").phase) == (running.id, "RUNNING")
    # What has ended since, the spool declares again: it is known, and not run again.
    eventually(lambda: "spooled" in host.names(), what="the spool, which is looked at beside the start, to be followed")
    lost = host.finished("spooled")
    assert (lost.id, lost.phase, lost.reason, len(lost.attempts)) == (ended.id, "FAILED", "Lost", 1)
    assert host.log("spooled") == b"once\n"
    let_go(host, "newer")
    assert host.finished("newer").exit_code == 7
    assert [run.id for run in host.job("spooled", history=True).runs] == [ended.id]
    condition = conditions(host)["PutBack"]
    assert condition.status == "True" and str(own_backups(host)[0]) in condition.message
    (aside,) = (host.root / "state").glob("damaged-*")
    assert (aside / "joblet.db").read_bytes() == damaged
    assert "PutBack" in host.rnx("nodes").out


def test_without_a_backup_it_refuses_and_restore_brings_all_back(host: Host) -> None:
    host.apply(ONCE.format(name="early"))
    early = host.finished("early")
    file = host.root / "mine.joblet-backup"
    said = joblet(host, "backup", str(file))
    assert said.returncode == 0, said.stderr
    host.apply(WAITING.format(name="late"))
    late = host.running("late")
    refused = joblet(host, "restore", str(file))
    assert refused.returncode == 1 and "the daemon runs" in refused.stderr
    host.kill()
    shutil.rmtree(host.root / "state/backups", ignore_errors=True)
    damage(host)
    with pytest.raises(AssertionError, match=r"(?s)holds no backup.*joblet restore FILE"):
        host.start()
    assert not list((host.root / "state").glob("damaged-*"))
    cut = host.root / "cut.joblet-backup"
    cut.write_bytes(file.read_bytes()[:-10])
    assert "no whole backup" in joblet(host, "restore", str(cut)).stderr
    restored = joblet(host, "restore", str(file))
    assert restored.returncode == 0, restored.stderr
    host.start()
    assert (host.run("early").id, host.run("early").reason) == (early.id, "Completed")
    assert (host.run("late").id, host.run("late").phase) == (late.id, "RUNNING")
    let_go(host, "late")
    assert host.finished("late").exit_code == 7


def test_another_machine_goes_on_from_a_backup(host: Host) -> None:
    host.apply(ONCE.format(name="early"))
    early = host.finished("early")
    (host.spool / "spooled.yml").write_text(ONCE.format(name="spooled"))
    eventually(lambda: (host.spool / "status/spooled.yml").exists(), what="the spooled job")
    host.finished("spooled")
    file = host.root.parent / "away.joblet-backup"
    assert joblet(host, "backup", str(file)).returncode == 0
    host.stop()
    for entry in host.root.iterdir():  # nothing of the first machine is there
        shutil.rmtree(entry) if entry.is_dir() else os.unlink(entry)
    restored = subprocess.run(
        [BIN / "joblet", "restore", file], capture_output=True, text=True, timeout=60 * PATIENCE, check=False
    )
    assert restored.returncode == 0, restored.stderr
    host.start()
    assert (host.run("early").id, host.run("early").reason) == (early.id, "Completed")
    assert len(host.job("spooled", history=True).runs) == 1
    host.apply(ONCE.format(name="new"))
    assert host.finished("new").phase == "COMPLETED"
