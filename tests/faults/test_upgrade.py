"""A daemon of this commit takes over from one of an earlier commit while jobs run, and knows all that it had recorded."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from joblet.api.v1 import job_pb2
from tests.integration.host import Host, eventually, job_host

ROOT = Path(__file__).parents[2]
# The commit before, and one that stays: the first whose jobs later daemons promise to adopt.
PARENT, FIRST = "HEAD^1", "95285cd"
WAITING = """
    apiVersion: joblet/v1
    kind: Job
    metadata: {{name: {name}}}
    spec:
      limits: {{memory: 64Mi, pids: 16}}
      stop: {{grace: 1s}}
      script: |
        trap 'exit 9' TERM
        echo begin
        i=0; while [ ! -e /work/go ] && [ $i -lt 6000 ]; do sleep 0.1; i=$((i+1)); done
        for n in $(seq 1 1000); do echo line $n; done
        exit 7
"""
SERVICE = """
    apiVersion: joblet/v1
    kind: Job
    metadata: {name: service}
    spec: {command: [sleep, '600'], restart: Always}
"""
ONCE = "{apiVersion: joblet/v1, kind: Job, metadata: {name: once}, spec: {command: [echo, once]}}"


def git(*arguments: str) -> bytes:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False, timeout=60)
    if done.returncode != 0:
        pytest.fail(
            f"git {' '.join(arguments)}: {done.stderr.decode().strip()}\nThis test runs the daemon of an earlier commit: "
            "it needs the repository's whole history (git clone without --depth, or git fetch --unshallow)"
        )
    return done.stdout


@pytest.fixture(params=[PARENT, FIRST])
def earlier(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The environment in which ``joblet`` is that of the earlier commit."""
    with tempfile.TemporaryDirectory(prefix=f"joblet-test-{os.getpid()}-") as directory:
        archive = Path(directory) / "tree.tar"
        archive.write_bytes(git("archive", request.param, "joblet", "reconciler", "cli"))
        with tarfile.open(archive) as tar:
            tar.extractall(directory, filter="data")
        path = os.pathsep.join(str(Path(directory, part)) for part in ("", "reconciler", "cli"))
        environment = {"PYTHONPATH": path}
        said = subprocess.run(
            [sys.executable, "-c", "import joblet, jobletd; print(joblet.__file__, jobletd.__file__)"],
            env={**os.environ, **environment},
            cwd="/",  # which comes first
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert said.stdout.count(directory) == 2, said.stdout
        yield environment


def init_of(host: Host, name: str) -> str:
    (state,) = (host.root / "state/attempts").glob(f"{name}-*/state")
    return state.read_text().split()[1]


def let_go(host: Host, name: str) -> None:
    with open(f"/proc/{init_of(host, name)}/root/work/go", "w"):
        pass


def test_jobs_of_an_earlier_daemon_go_on_under_this_one(earlier: dict[str, str]) -> None:
    with job_host(environment=earlier) as host:
        host.apply(ONCE)
        once = host.finished("once")
        for name in ("goes-on", "ends-meanwhile", "is-stopped"):
            host.apply(WAITING.format(name=name))
        host.apply(SERVICE)
        before = {name: host.running(name) for name in ("goes-on", "ends-meanwhile", "is-stopped", "service")}
        host.kill()
        let_go(host, "ends-meanwhile")
        record = host.root / "state/attempts" / before["ends-meanwhile"].attempts[0].id / "exit.json"
        eventually(record.exists, what="the exit record")
        host.environment.clear()
        host.start()
        for name in ("goes-on", "is-stopped", "service"):
            run = host.run(name)
            assert (run.id, run.phase, len(run.attempts)) == (before[name].id, "RUNNING", 1), name
        ended = host.finished("ends-meanwhile")
        assert (ended.id, ended.reason, ended.exit_code) == (before["ends-meanwhile"].id, "ExitCode", 7)
        let_go(host, "goes-on")
        ended = host.finished("goes-on")
        assert (ended.id, ended.exit_code, len(ended.attempts)) == (before["goes-on"].id, 7, 1)
        assert host.log("goes-on") == b"begin\n" + b"".join(b"line %d\n" % n for n in range(1, 1001))
        host.jobs.Stop(job_pb2.StopRequest(ref="is-stopped"))
        stopped = host.finished("is-stopped")
        assert (stopped.phase, stopped.reason, stopped.exit_code) == ("STOPPED", "Stopped", 9)
        assert [run.id for run in host.job("once", history=True).runs] == [once.id]
        (result,) = host.apply(ONCE)
        assert result.action == "unchanged"
        # And what is launched now, beside an init of before.
        host.apply(ONCE.replace("once", "new"))
        assert host.finished("new").phase == "COMPLETED"
