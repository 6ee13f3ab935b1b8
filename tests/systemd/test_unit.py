"""The unit: what becomes of jobs when the daemon is stopped, restarted, killed, or hangs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from joblet.api.v1 import job_pb2
from tests.integration.host import eventually
from tests.systemd.installed import CGROUP, ROOT, SLICE, UNIT, Installed, alive, run

SLEEPER = """
{apiVersion: joblet/v1, kind: Job, metadata: {name: sleeper},
 spec: {command: [sleep, "100000"], limits: {memory: 64Mi}}}
"""


@pytest.fixture(params=["stop", "keep"])
def policy(request: pytest.FixtureRequest, daemon: Installed) -> str:
    """server.onShutdown, in force."""
    daemon.set_key("server", "onShutdown", request.param)
    return str(request.param)


@pytest.fixture
def sleeper(daemon: Installed) -> Iterator[int]:
    """A job that runs: its command's pid. Deleted in the end."""
    daemon.apply(SLEEPER)
    yield daemon.pid_of("sleeper")
    daemon.systemctl("start", UNIT)
    daemon.delete("sleeper")


def still_runs(daemon: Installed, pid: int) -> bool:
    """The same process, and on record as the first attempt of its run."""
    latest = daemon.run("sleeper")
    return daemon.pids_of("sleeper") == [pid] and (latest.phase, len(latest.attempts)) == ("RUNNING", 1)


def test_the_daemon_is_in_a_leaf_and_a_jobs_memory_limit_in_the_units_cgroup(daemon: Installed, sleeper: int) -> None:
    (job,) = daemon.cgroups_of("sleeper")
    assert (job.parent, (job / "memory.max").read_text()) == (CGROUP, f"{64 << 20}\n")
    assert (job / "cgroup.procs").read_text() == f"{sleeper}\n"
    where = Path(f"/proc/{daemon.main_pid}/cgroup").read_text()
    assert where == "0::/joblet.slice/joblet.service/daemon\n"


def test_a_killed_daemon_is_started_again_and_its_jobs_do_not_notice(
    daemon: Installed, policy: str, sleeper: int
) -> None:
    before = daemon.main_pid
    os.kill(before, signal.SIGKILL)
    daemon.after_the_death_of(before)
    assert still_runs(daemon, sleeper), policy


def test_a_daemon_that_hangs_is_replaced_and_its_jobs_do_not_notice(daemon: Installed, sleeper: int) -> None:
    before = daemon.main_pid
    os.kill(before, signal.SIGSTOP)
    daemon.after_the_death_of(before)
    assert "Fatal Python error: Aborted" in daemon.journal()  # and below it, where it hung
    assert still_runs(daemon, sleeper)


def test_a_restart_keeps_jobs_if_the_configuration_says_so(daemon: Installed, sleeper: int) -> None:
    daemon.set_key("server", "onShutdown", "keep")
    daemon.forget_daemon()
    for _ in range(2):  # the second time, also systemd itself starts the daemon among jobs
        daemon.systemctl("restart", UNIT)
        assert still_runs(daemon, sleeper)


def test_a_stop_keeps_jobs_if_the_configuration_says_so(daemon: Installed, sleeper: int) -> None:
    daemon.set_key("server", "onShutdown", "keep")
    daemon.forget_daemon()
    daemon.systemctl("stop", UNIT)
    assert daemon.pids_of("sleeper") == [sleeper]
    daemon.systemctl("start", UNIT)
    assert still_runs(daemon, sleeper)


def test_a_stop_that_ends_jobs_leaves_no_process_and_no_cgroup(daemon: Installed, sleeper: int) -> None:
    daemon.set_key("server", "onShutdown", "stop")
    daemon.forget_daemon()
    daemon.systemctl("stop", UNIT)
    assert not alive(sleeper)
    assert run("pgrep", "joblet", check=False).stdout == ""
    eventually(lambda: not SLICE.exists(), what="the end of the slice")
    assert "joblet.slice" not in Path("/proc/self/mountinfo").read_text()
    assert daemon.shown("Result") == "success"


def test_the_kernels_killing_of_a_job_is_no_trouble_of_the_unit(daemon: Installed) -> None:
    before = daemon.main_pid
    daemon.apply("""
        {apiVersion: joblet/v1, kind: Job, metadata: {name: glutton},
         spec: {command: [sh, -c, "exec tail /dev/zero"], limits: {memory: 16Mi}}}
    """)
    ended = daemon.finished("glutton")
    assert (ended.phase, ended.reason) == ("FAILED", "OOMKilled")
    assert (daemon.main_pid, daemon.shown("ActiveState")) == (before, "active")
    daemon.jobs.Delete(job_pb2.DeleteRequest(name="glutton"))


WHOLE = """
    {apiVersion: joblet/v1, kind: Volume, metadata: {name: fast}, spec: {size: 4Mi, type: memory}}
    ---
    {apiVersion: joblet/v1, kind: Volume, metadata: {name: slow}, spec: {size: 4Mi}}
    ---
    {apiVersion: joblet/v1, kind: Job, metadata: {name: whole},
     spec: {script: "set -e; echo new > /fast/file; cp /fast/file /slow; echo ready; exec sleep 100000",
            limits: {disk: 64Mi, memory: 64Mi, cpu: 100%, pids: 10, io: {write: 10Mi}},
            isolation: {hostname: whole},
            volumes: [{name: fast, path: /fast}, {name: slow, path: /slow}]}}
"""


def test_what_sandboxes_take_is_allowed_by_the_unit_and_memory_outlives_the_daemon(daemon: Installed) -> None:
    daemon.set_key("server", "onShutdown", "keep")
    daemon.apply(WHOLE)
    daemon.running("whole")
    eventually(lambda: b"ready" in daemon.log("whole", follow=False), what="the script's last line")
    eventually(lambda: len(daemon.pids_of("whole")) == 1, what="the shell that becomes sleep")
    (pid,) = daemon.pids_of("whole")
    daemon.forget_daemon()
    daemon.systemctl("restart", UNIT)
    assert daemon.pids_of("whole") == [pid]
    assert os.path.ismount(ROOT / "run/volumes/fast")
    daemon.delete("whole")
    daemon.apply(WHOLE.replace("echo new >", "grep new").replace("exec sleep 100000", "exit 3"))
    assert daemon.finished("whole").exit_code == 3, daemon.log("whole", stream="stderr")
    daemon.delete("whole")
    for name in ("fast", "slow"):
        run(ROOT / "bin/rnx", "--config", daemon.client_config(), "volume", "remove", name)
