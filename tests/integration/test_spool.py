"""The spool directory: files are desired state, edits are changes, deletions stop."""

from __future__ import annotations

import os
from collections.abc import Iterator

import grpc
import pytest
from ruamel.yaml import YAML

from joblet.api.v1 import job_pb2
from tests.integration.host import Host, eventually, job_host

JOB = """\
apiVersion: joblet/v1
kind: Job
metadata: {{name: {name}}}
spec:
  command: {command}
  stop: {{grace: 0s}}
"""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host() as host:
        yield host


def drop(host: Host, file: str, name: str, command: str = '[sleep, "600"]') -> None:
    (host.spool / file).write_text(JOB.format(name=name, command=command))


def exists(host: Host, name: str) -> bool:
    return any(job.name == name for job in host.jobs.List(job_pb2.ListRequest()).jobs)


def appeared(host: Host, name: str) -> job_pb2.Run:
    eventually(lambda: exists(host, name), what=f"job {name}")
    return host.running(name)


def test_a_dropped_file_runs_and_its_status_is_written_beside(host: Host) -> None:
    drop(host, "a.yml", "dropped", "[echo, well]")
    eventually(lambda: exists(host, "dropped"))
    assert host.finished("dropped").phase == "COMPLETED"
    assert host.job("dropped").source == "spool:a.yml"
    status = host.spool / "status/dropped.yml"
    eventually(lambda: status.exists() and "COMPLETED" in status.read_text(), what="the status file")
    assert YAML(typ="safe").load(status.read_text())


def test_an_edit_stops_the_old_run_and_starts_a_new_one(host: Host) -> None:
    drop(host, "b.yml", "edited")
    first = appeared(host, "edited")
    drop(host, "b.yml", "edited", '[sleep, "601"]')
    second = host.watch_until("edited", lambda run: run.generation == 2 and run.phase == "RUNNING")
    assert second.id != first.id
    old = host.run(first.id)
    assert (old.phase, old.reason) == ("STOPPED", "Superseded")


def test_an_invalid_edit_changes_nothing_that_runs_and_is_shown(host: Host) -> None:
    drop(host, "c.yml", "steady")
    first = appeared(host, "steady")
    (host.spool / "c.yml").write_text(
        "apiVersion: joblet/v1\nkind: Job\nmetadata: {name: steady}\nspec: {comand: [x]}\n"
    )
    error = host.spool / "status/c.yml.error.yml"
    eventually(error.exists, what="the error file")
    assert "comand" in error.read_text() and "c.yml:4:" in error.read_text()
    assert host.run("steady").id == first.id and host.run("steady").phase == "RUNNING"
    drop(host, "c.yml", "steady")
    eventually(lambda: not error.exists(), what="the error file's removal")
    assert host.run("steady").id == first.id


def test_a_deleted_file_stops_and_removes_its_job(host: Host) -> None:
    drop(host, "d.yml", "gone")
    run = appeared(host, "gone")
    (host.spool / "d.yml").unlink()
    eventually(lambda: not exists(host, "gone"), what="the removal")
    # Its history stays, by the run's id.
    assert host.run(run.id).reason == "Deleted"


def test_a_second_file_with_the_same_name_is_a_conflict_and_the_first_stays(host: Host) -> None:
    drop(host, "e.yml", "twice")
    first = appeared(host, "twice")
    drop(host, "f.yml", "twice", "[echo, usurper]")
    error = host.spool / "status/f.yml.error.yml"
    eventually(error.exists, what="the conflict")
    assert "e.yml" in error.read_text()
    assert host.run("twice").id == first.id
    eventually(lambda: any(one.type == "Conflict" for one in host.job("twice").conditions), what="its condition")
    (host.spool / "f.yml").unlink()
    eventually(lambda: not error.exists())


def test_a_renamed_file_moves_ownership_and_restarts_nothing(host: Host) -> None:
    drop(host, "g.yml", "moved")
    first = appeared(host, "moved")
    (host.spool / "g.yml").rename(host.spool / "h.yml")
    eventually(lambda: host.job("moved").source == "spool:h.yml", what="the new owner")
    assert host.run("moved").id == first.id and host.run("moved").phase == "RUNNING"


def test_other_files_are_left_alone(host: Host) -> None:
    for file in (".hidden.yml", "x.yml~", "#x.yml#", "x.yml.swp", "x.yaml.backup", "x.txt"):
        drop(host, file, "ignored")
    drop(host, "last.json.yml", "after-the-ignored", "['true']")
    eventually(lambda: exists(host, "after-the-ignored"))
    assert not exists(host, "ignored")


def test_json_is_taken_too(host: Host) -> None:
    (host.spool / "j.json").write_text(
        '{"apiVersion": "joblet/v1", "kind": "Job", "metadata": {"name": "from-json"}, "spec": {"command": ["true"]}}'
    )
    eventually(lambda: exists(host, "from-json"))
    assert host.finished("from-json").phase == "COMPLETED"


def test_a_file_that_others_may_write_is_refused_with_the_reason(host: Host) -> None:
    path = host.spool / ".w.tmp"
    path.write_text(JOB.format(name="unsafe", command="['true']"))
    path.chmod(0o666)
    path.rename(host.spool / "w.yml")
    error = host.spool / "status/w.yml.error.yml"
    eventually(error.exists, what="the refusal")
    assert "can be written by others" in error.read_text()
    assert not exists(host, "unsafe")


def test_a_link_that_leads_outside_is_refused(host: Host) -> None:
    outside = host.root / "outside.yml"
    outside.write_text(JOB.format(name="outside", command="['true']"))
    os.symlink(outside, host.spool / "link.yml")
    error = host.spool / "status/link.yml.error.yml"
    eventually(error.exists, what="the refusal")
    assert not exists(host, "outside")


def test_grpc_may_not_change_what_a_file_owns(host: Host) -> None:
    drop(host, "o.yml", "owned")
    appeared(host, "owned")
    with pytest.raises(grpc.RpcError) as refused:
        host.apply(JOB.format(name="owned", command="['true']"))
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "spool:o.yml" in (refused.value.details() or "")


def test_files_removed_while_the_daemon_was_away_are_pruned(host: Host) -> None:
    drop(host, "p.yml", "pruned")
    run = appeared(host, "pruned")
    host.kill()
    (host.spool / "p.yml").unlink()
    host.start()
    eventually(lambda: not exists(host, "pruned"), what="the removal")
    assert host.run(run.id).phase == "STOPPED"
