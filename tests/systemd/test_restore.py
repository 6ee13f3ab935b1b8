"""``joblet restore --service``: the unit is stopped and started around it, and nothing stays of what it does not start on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.host import change_yaml
from tests.systemd.installed import UNIT, Installed

JOB = "{{apiVersion: joblet/v1, kind: Job, metadata: {{name: {name}}}, spec: {{command: ['true'], suspend: true}}}}"


@pytest.fixture
def daemon(daemon: Installed) -> Iterator[Installed]:
    """With a job of before, none of which is left in the end."""
    daemon.apply(JOB.format(name="before"))
    yield daemon
    daemon.forget_daemon()
    daemon.delete(*names(daemon))


def names(daemon: Installed) -> set[str]:
    listed = daemon.rnx("list", "-o", "name")
    assert listed.status == 0, listed.err
    return set(listed.out.split())


def test_a_backup_is_put_back_under_the_running_unit(daemon: Installed, tmp_path: Path) -> None:
    backup = tmp_path / "one.joblet-backup"
    daemon.joblet("backup", backup)
    daemon.apply(JOB.format(name="later"))
    pid = daemon.main_pid
    daemon.forget_daemon()
    done = daemon.joblet("restore", "--service", backup)
    assert f"{UNIT} runs on it" in done.stdout and "Next:" not in done.stdout
    assert daemon.ready_pid not in (0, pid)
    assert names(daemon) == {"before"}


def test_what_the_daemon_does_not_start_on_is_taken_back(daemon: Installed, tmp_path: Path) -> None:
    """Every file of it is good; that somebody else has its port only the start finds out."""
    before = daemon.config.read_bytes()
    backup = tmp_path / "two.joblet-backup"
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        metrics = {"enabled": True, "port": somebody.getsockname()[1]}
        change_yaml(daemon.config, lambda content: content.update(metrics=metrics))
        daemon.joblet("backup", backup)
        daemon.config.write_bytes(before)
        daemon.apply(JOB.format(name="later"))
        daemon.forget_daemon()
        done = daemon.joblet("restore", "--service", backup, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "does not start on what was put back" in done.stderr and "journalctl" in done.stderr
    assert daemon.config.read_bytes() == before
    assert daemon.ready_pid
    assert names(daemon) == {"before", "later"}
    assert "is taken" in daemon.journal() or "Address already in use" in daemon.journal()


def test_a_file_that_is_no_backup_leaves_the_unit_running(daemon: Installed, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"nothing")
    daemon.forget_daemon()
    done = daemon.joblet("restore", "--service", wrong, check=False)
    assert done.returncode == 1 and str(wrong) in done.stderr
    assert daemon.ready_pid
    assert names(daemon) == {"before"}
