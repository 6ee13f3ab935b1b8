"""No room, descriptors or memory: nothing new is taken on, the node says why, what runs goes on, all comes back by itself."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from joblet.api.v1 import job_pb2, node_pb2, node_pb2_grpc
from joblet.cgroup.detect import mounted
from tests.faults.small_disk import small_disk
from tests.integration.host import PATIENCE, Host, eventually, job_host

MIB = 1 << 20
FLOOR = 8 * MIB
WAITING = """
    apiVersion: joblet/v1
    kind: Job
    metadata: {{name: {name}}}
    spec:
      script: |
        echo begin
        i=0; while [ ! -e /work/go ] && [ $i -lt 6000 ]; do sleep 0.1; i=$((i+1)); done
        echo end
        exit 7
"""
SLEEPING = "{{apiVersion: joblet/v1, kind: Job, metadata: {{name: {name}}}, spec: {{command: [sleep, '600']}}}}"
ONCE = "{{apiVersion: joblet/v1, kind: Job, metadata: {{name: {name}}}, spec: {{command: ['true']}}}}"


def go_file(host: Host, name: str) -> str:
    """Where the test lets the job go on: found while the host has what that takes."""
    (state,) = (host.root / "state/attempts").glob(f"{name}-*/state")
    return f"/proc/{state.read_text().split()[1]}/root/work/go"


def let_go(path: str) -> None:
    with open(path, "w"):
        pass


def refused(host: Host, text: str) -> grpc.RpcError:
    """The error of an apply that has to be refused for want of something."""
    with pytest.raises(grpc.RpcError) as caught:
        host.apply(text)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, caught.value
    return caught.value


def node(host: Host) -> node_pb2.Node:
    assert host.jobs is not None
    stub = node_pb2_grpc.NodeServiceStub(host.channels["admin"])
    found: node_pb2.Node = stub.GetNode(node_pb2.GetNodeRequest(), timeout=60 * PATIENCE)
    return found


def status(host: Host, kind: str) -> str:
    return next(one.status for one in node(host).conditions if one.type == kind)


def is_accepted(host: Host, text: str) -> bool:
    try:
        host.apply(text)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        return False
    return True


def accepted_again(host: Host, name: str) -> None:
    eventually(lambda: is_accepted(host, ONCE.format(name=name)), what="an apply is accepted again")
    assert host.finished(name).phase == "COMPLETED"


def exists(host: Host, name: str) -> bool:
    try:
        host.job(name)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        return False
    return True


# --- disks ------------------------------------------------------------------------------------------------------------


def test_a_full_state_disk_stops_nothing_that_runs_and_nothing_is_half_written() -> None:
    with small_disk(48 * MIB) as disk:

        def configure(config: dict[str, Any]) -> None:
            config["state"].update(directory=str(disk.path), minFree="8Mi")

        with job_host(configure=configure) as host:
            host.apply(WAITING.format(name="runs"))
            run = host.running("runs")
            (state,) = disk.path.glob("attempts/runs-*/state")
            init = Path(f"/proc/{state.read_text().split()[1]}")
            # Below the floor: there is room, but not for anything new.
            disk.fill(leave_bytes=FLOOR - MIB)
            eventually(lambda: status(host, "DiskPressure") == "True", what="the condition")
            error = refused(host, ONCE.format(name="late"))
            assert "state.minFree" in str(error.details()), error.details()
            assert "DiskPressure" in host.rnx("nodes").out
            (unchanged,) = host.apply(WAITING.format(name="runs"))  # asks for nothing new
            assert unchanged.action == "unchanged"
            # Not a byte left: even what has to be recorded waits.
            disk.fill()
            refused(host, ONCE.format(name="late"))
            assert not exists(host, "late")  # reading goes on
            let_go(f"{init}/root/work/go")
            eventually(lambda: not (init / "task" / init.name / "children").read_text(), what="the end of the command")
            assert host.run("runs").phase == "RUNNING"  # nobody can put its end on record
            disk.empty()
            ended = host.finished("runs")
            assert (ended.id, ended.exit_code, len(ended.attempts)) == (run.id, 7, 1)
            assert host.log("runs") == b"begin\nend\n"
            accepted_again(host, "after")
            eventually(lambda: status(host, "DiskPressure") == "False")
            eventually(lambda: status(host, "StoreWritable") == "True")
            assert not exists(host, "late")
            host.kill()
            with closing(sqlite3.connect(disk.path / "joblet.db")) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            host.start()
            assert host.run("runs").exit_code == 7


def test_a_shutdown_on_a_full_disk_ends_and_the_next_start_records_how_the_jobs_ended() -> None:
    with small_disk(48 * MIB) as disk:

        def configure(config: dict[str, Any]) -> None:
            config["state"].update(directory=str(disk.path), minFree="8Mi")
            config["server"]["onShutdown"] = "stop"

        with job_host(configure=configure) as host:
            for name in ("runs", "too"):
                host.apply(SLEEPING.format(name=name))
                host.running(name)
            disk.fill()
            assert host.daemon is not None
            host.daemon.terminate()
            assert host.daemon.wait(timeout=40 * PATIENCE) == 0, host.log_tail()
            disk.empty()
            host.start()
            for name in ("runs", "too"):
                host.jobs.Stop(job_pb2.StopRequest(ref=name), timeout=30 * PATIENCE)
                ended = host.finished(name)
                assert (ended.phase, len(ended.attempts)) == ("STOPPED", 1), ended


def test_a_disk_without_a_byte_for_the_database_is_told_as_such_even_without_a_floor() -> None:
    with small_disk(24 * MIB) as disk:

        def configure(config: dict[str, Any]) -> None:
            config["state"].update(directory=str(disk.path), minFree="1Mi")

        with job_host(configure=configure) as host:
            host.apply(ONCE.format(name="first"))
            host.finished("first")
            disk.fill()
            eventually(lambda: status(host, "DiskPressure") == "True", what="the condition")
            refused(host, ONCE.format(name="late"))
            disk.empty()
            accepted_again(host, "after")


def test_a_full_log_disk_costs_a_job_its_output_and_nothing_else() -> None:
    with small_disk(24 * MIB) as disk:

        def configure(config: dict[str, Any]) -> None:
            config["logs"]["directory"] = str(disk.path)
            config["state"]["minFree"] = "8Mi"

        with job_host(configure=configure) as host:
            host.apply(WAITING.format(name="runs"))
            host.running("runs")
            eventually(lambda: list(disk.path.rglob("*.log")), what="the job's log")
            disk.fill()
            eventually(lambda: status(host, "DiskPressure") == "True", what="the condition")
            error = refused(host, ONCE.format(name="late"))
            assert str(disk.path) in str(error.details())
            let_go(go_file(host, "runs"))
            ended = host.finished("runs")
            assert ended.exit_code == 7
            assert host.log("runs").startswith(b"begin\n")
            disk.empty()
            accepted_again(host, "after")


# --- descriptors ------------------------------------------------------------------------------------------------------


def test_a_daemon_without_descriptors_answers_keeps_its_jobs_and_recovers() -> None:
    with job_host(within=("prlimit", "--nofile=160:160")) as host:
        host.apply(WAITING.format(name="runs"))
        host.running("runs")
        go = go_file(host, "runs")
        names: list[str] = []
        while len(names) < 100:
            name = f"sleeps-{len(names)}"
            if not is_accepted(host, SLEEPING.format(name=name)):
                if status(host, "DescriptorPressure") == "True":
                    break
                continue  # what had been open for an instant is closed again
            names.append(name)

            def started_or_held(name: str = name) -> bool:
                return host.run(name).phase == "RUNNING" or status(host, "DescriptorPressure") == "True"

            eventually(started_or_held, what=f"{name} to run, or to wait for room")
        assert 5 < len(names) < 100, "no bound was reached"
        assert not exists(host, f"sleeps-{len(names)}")
        # Strangers take the rest of them.
        port = int((host.root / "run/port").read_text())
        strangers = [socket.create_connection(("127.0.0.1", port), timeout=10 * PATIENCE) for _ in range(100)]
        try:
            assert host.run("runs").phase == "RUNNING"
            let_go(go)
            assert host.finished("runs").exit_code == 7
        finally:
            for stranger in strangers:
                stranger.close()
        for name in names:
            host.jobs.Delete(job_pb2.DeleteRequest(name=name), timeout=30 * PATIENCE)
        accepted_again(host, "after")
        eventually(lambda: status(host, "DescriptorPressure") == "False")


# --- memory -----------------------------------------------------------------------------------------------------------


@contextmanager
def memory_cgroup() -> Iterator[Path]:
    v1, v2 = mounted()
    path = Path(v1.get("memory") or v2 or "") / f"joblet-test-{os.getpid()}-{os.path.basename(tempfile.mktemp())}"
    path.mkdir()
    try:
        yield path
    finally:
        eventually(lambda: not (path / "cgroup.procs").read_text(), what="the end of what was started in it")
        path.rmdir()


def limit(cgroup: Path, size_bytes: int | None) -> None:
    for name, none in (("memory.max", "max"), ("memory.limit_in_bytes", "-1")):
        if (cgroup / name).exists():
            (cgroup / name).write_text(none if size_bytes is None else str(size_bytes))


def used_bytes(cgroup: Path) -> int:
    """Without what the kernel gives back at once."""
    name = "memory.current" if (cgroup / "memory.current").exists() else "memory.usage_in_bytes"
    figures = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    cache = figures.get("total_inactive_file") or figures["inactive_file"]
    return int((cgroup / name).read_text()) - int(cache)


def test_a_daemon_near_its_memory_limit_takes_nothing_on_and_one_beyond_it_is_followed_by_another() -> None:
    with memory_cgroup() as cgroup:
        enter = f'echo $$ > {cgroup}/cgroup.procs; exec "$@"'
        with job_host(within=("sh", "-c", enter, "sh")) as host:
            host.apply(WAITING.format(name="runs"))
            run = host.running("runs")
            try:
                node(host)  # what it looks up once is in its memory now
                limit(cgroup, int(used_bytes(cgroup) * 1.08))
                eventually(lambda: status(host, "MemoryPressure") == "True", what="the condition")
                refused(host, ONCE.format(name="late"))
                assert host.run("runs").phase == "RUNNING"
                # What a client sends takes more than is left: the kernel ends the daemon, and none of its jobs.
                large = job_pb2.ApplyRequest(manifest=(ONCE.format(name="large") + "\n---\n").encode() * 20_000)
                with pytest.raises(grpc.RpcError):
                    host.jobs.Apply(large, timeout=60 * PATIENCE)
                assert host.daemon is not None
                assert host.daemon.wait(30 * PATIENCE) == -signal.SIGKILL, host.log_tail()
            finally:
                limit(cgroup, None)
            host.start()
            assert (host.run("runs").id, host.run("runs").phase) == (run.id, "RUNNING")
            let_go(go_file(host, "runs"))
            assert host.finished("runs").exit_code == 7
            accepted_again(host, "after")
            assert status(host, "MemoryPressure") == "False"
