"""``joblet sandbox-exec`` in Slurm's allocations: the local executor's sandbox, claimed once, its end on record, nothing left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobletd.executor.slurm_node.place import CLAIM, EXIT, Place
from jobletd.executor.slurm_node.records import ended_of
from jobletd.model import Exited, Killed, NotStarted, Reason, Unknown
from tests.slurm.attempts import ROOT, Submitted, init_nodes, remains, submit, sweep
from tests.slurm.cluster import Cluster
from tests.slurm.joblet_host import let_go

SLEEP = {"command": ["sleep", "600"]}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(nodes=2) as cluster:
        init_nodes(cluster)
        yield cluster


@pytest.fixture(scope="module")
def simple(cluster: Cluster) -> dict[str, Submitted]:
    """Attempts that end by themselves, all at once."""
    specs: dict[str, dict[str, Any]] = {
        "exit": {"command": ["sh", "-c", "echo to out; echo to err >&2; exit 3"]},
        "signal": {"command": ["sh", "-c", "kill -QUIT $$"]},
        "memory": {
            "script": "head -c 200M /dev/zero | tail",
            "limits": {"memory": "48Mi", "pids": 20, "cpu": "80%"},
        },
        "time": {"command": ["sleep", "600"], "attemptTimeout": "1s"},
        "network": {"command": ["true"], "isolation": {"network": "bridge"}},
        "command": {"command": ["/does/not/exist"]},
    }
    return {
        name: submit(cluster, f"{name}-aaaa-1", spec, memory_mib=48, node=f"n{1 + number % 2}")
        for number, (name, spec) in enumerate(specs.items())
    }


def test_the_commands_exit_code_is_slurms_and_the_records(simple: dict[str, Submitted]) -> None:
    attempt = simple["exit"]
    assert attempt.exit_code() == 3
    end = attempt.ended().end
    assert (end.outcome, end.reason) == (Exited(3), Reason.EXIT_CODE)
    assert end.started_ns and end.ended_ns >= end.started_ns
    assert end.usage.memory_peak_bytes


def test_output_is_in_the_log_that_the_daemon_reads(simple: dict[str, Submitted]) -> None:
    simple["exit"].ended()
    assert sorted(simple["exit"].output().splitlines()) == ["to err", "to out"]


def test_a_signal_is_told_by_name_and_as_a_shell_does(simple: dict[str, Submitted]) -> None:
    assert simple["signal"].exit_code() == 128 + 3
    assert (simple["signal"].ended().end.outcome, simple["signal"].ended().end.reason) == (
        Killed("SIGQUIT"),
        Reason.SIGNAL,
    )


def test_our_oom_kill_comes_before_slurms_and_is_named(simple: dict[str, Submitted]) -> None:
    ended = simple["memory"].ended()
    assert ended.end.reason is Reason.OOM_KILLED, ended
    assert {limit.name: limit.effective for limit in ended.limits if limit.enforced} == {
        "cpu": "80%",
        "memory": "48Mi",
        "swap": "0",
        "pids": "20",
    }
    # With cgroup v2 Slurm sees our kill, too, and calls it OUT_OF_MEMORY.
    assert simple["memory"].state()["JobState"] in ("FAILED", "OUT_OF_MEMORY")


def test_a_time_limit_in_seconds_ends_it(simple: dict[str, Submitted]) -> None:
    assert simple["time"].ended().end.reason is Reason.TIMED_OUT


def test_what_a_node_cannot_give_is_an_error_that_names_the_field(simple: dict[str, Submitted]) -> None:
    assert simple["network"].exit_code() == 70
    end = simple["network"].ended().end
    assert end.reason is Reason.START_ERROR
    assert isinstance(end.outcome, NotStarted)
    assert "spec.isolation.network" in end.message


def test_a_command_that_is_not_there_is_no_exit_code(simple: dict[str, Submitted]) -> None:
    assert simple["command"].exit_code() == 70
    assert isinstance(simple["command"].ended().end.outcome, NotStarted)


def test_an_attempt_that_is_submitted_twice_runs_once(cluster: Cluster) -> None:
    spec = {"command": ["echo", "ran"]}
    both = [submit(cluster, "twice-aaaa-1", spec, node=node) for node in ("n1", "n2")]
    assert sorted(attempt.exit_code() for attempt in both) == [0, 75]
    assert both[0].output() == "ran\n"
    assert both[0].ended().end.outcome == Exited(0)


def test_an_attempt_that_was_given_up_for_lost_never_begins(cluster: Cluster) -> None:
    assert cluster.shared_directory
    assert Place.of(cluster.shared_directory, "late-aaaa-1").claim({"attempt_id": "late-aaaa-1", "node": None})
    attempt = submit(cluster, "late-aaaa-1", {"command": ["echo", "ran"]})
    assert attempt.exit_code() == 75
    assert os.listdir(attempt.place.directory) == [CLAIM]


def test_a_signal_to_the_batch_script_stops_the_job_in_an_orderly_way(cluster: Cluster) -> None:
    script = "trap 'echo told; exit 5' TERM; echo ready; while :; do sleep 0.1; done"
    attempt = submit(cluster, "stop-aaaa-1", {"command": ["sh", "-c", script]})
    attempt.wait_for_output("ready")
    cluster.slurm("scancel", "--batch", "--signal=TERM", attempt.job)
    assert attempt.exit_code() == 5
    assert attempt.ended().end.reason is Reason.STOPPED
    assert "told" in attempt.output()


def test_a_job_that_does_not_listen_is_killed_after_its_grace_or_at_once(cluster: Cluster) -> None:
    spec = {"command": ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"], "stop": {"grace": "0.5s"}}
    patient = {**spec, "stop": {"grace": "10m"}}
    attempts = [
        submit(cluster, "deaf-aaaa-1", spec, node="n1"),
        submit(cluster, "deaf-bbbb-1", patient, node="n2"),
    ]
    for attempt, signal in zip(attempts, ("TERM", "USR1"), strict=True):
        attempt.wait_for_output("ready")
        cluster.slurm("scancel", "--batch", f"--signal={signal}", attempt.job)
    for attempt in attempts:
        end = attempt.ended().end
        assert (end.outcome, end.reason) == (Killed("SIGKILL"), Reason.STOPPED)


def test_what_scancel_ends_is_on_record_as_stopped(cluster: Cluster) -> None:
    attempt = submit(cluster, "cancel-aaaa-1", SLEEP)
    attempt.wait_until_it_runs()
    cluster.slurm("scancel", attempt.job)
    assert attempt.state()["JobState"] == "CANCELLED"
    assert attempt.ended().end.reason is Reason.STOPPED


def test_a_job_that_slurm_kills_without_a_warning_takes_its_init_along_and_is_cleared_away_later(
    cluster: Cluster,
) -> None:
    spec = {
        "script": "trap '' TERM; echo ready; while :; do sleep 0.1; done",
        "stop": {"grace": "10m"},
        "limits": {"memory": "32Mi", "pids": 5, "disk": "100Mi"},
    }
    attempt = submit(cluster, "kill-aaaa-1", spec)
    attempt.wait_for_output("ready")
    cluster.slurm("scancel", attempt.job)  # after KillWait all processes of the job are killed
    attempt.state()
    assert not attempt.place.has_ended
    cluster.wait_until(lambda: cluster.node_state("n1") == "idle", within=60, what="the job's end on n1")
    assert remains(cluster, "n1")
    sweep(cluster, "n1")
    end = attempt.ended().end
    assert isinstance(end.outcome, Unknown)
    assert end.reason is Reason.LOST
    assert remains(cluster, "n1") == []


def test_a_job_outlives_slurmd(cluster: Cluster) -> None:
    script = "echo ready; until [ -e go ]; do sleep 0.1; done; exit 4"
    attempt = submit(cluster, "outlives-slurmd-aaaa-1", {"command": ["sh", "-c", script]}, node="n2")
    attempt.wait_for_output("ready")
    cluster.kill_slurmd("n2")
    assert not attempt.place.has_ended
    let_go("outlives-slurmd")
    assert attempt.ended().end.outcome == Exited(4)
    cluster.start_slurmd("n2")
    assert attempt.exit_code() == 4


def test_without_a_shared_directory_the_node_keeps_what_is_told(cluster: Cluster) -> None:
    attempt = submit(cluster, "alone-aaaa-1", {"command": ["echo", "here"]}, node="n2", shared=False)
    assert attempt.exit_code() == 0
    assert attempt.ended().end.outcome == Exited(0)
    assert attempt.output() == "here\n"


def test_an_end_that_the_shared_directory_does_not_take_is_kept_on_the_node(cluster: Cluster) -> None:
    script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done"
    attempt = submit(cluster, "away-aaaa-1", {"command": ["sh", "-c", script]}, node="n1")
    attempt.wait_for_output("ready")
    place = Path(attempt.place.directory)
    place.rename(f"{place}.away")
    cluster.slurm("scancel", "--batch", "--signal=TERM", attempt.job)
    assert attempt.exit_code() == 9
    kept = Place.of(os.fspath(cluster.path_on("n1", f"{ROOT}/state/slurm")), attempt.attempt_id).read(EXIT)
    assert kept is not None
    assert ended_of(kept).end.outcome == Exited(9)


def test_after_a_power_cut_the_node_tells_of_it(cluster: Cluster) -> None:
    attempt = submit(cluster, "power-aaaa-1", SLEEP, node="n2")
    attempt.wait_until_it_runs()
    cluster.kill("n2")
    cluster.start("n2")
    sweep(cluster, "n2")
    assert attempt.ended().end.reason is Reason.NODE_REBOOT
    cluster.slurm("scancel", attempt.job)  # which takes its time to see that
    assert remains(cluster, "n2") == []


def test_outside_of_slurm_it_says_what_it_is(cluster: Cluster) -> None:
    done = cluster.run_on("n1", [*cluster.joblet_command, "sandbox-exec"], check=False, stdin="")
    assert done.returncode == 70
    assert "docs/SLURM.md" in done.stderr


def test_nothing_is_left_on_the_nodes(cluster: Cluster) -> None:
    cluster.wait_until(lambda: not cluster.slurm("squeue", "-h"), within=60, what="no job runs")
    for node in cluster.names:
        cluster.wait_until(lambda: not remains(cluster, node), what=f"nothing on {node}")  # noqa: B023
        processes = cluster.run_on(node, ["ps", "-eo", "args="]).stdout
        assert "joblet-init" not in processes
        assert "sandbox-exec" not in processes
    assert not list(Path(cluster.path_on("n1", ROOT), "state/slurm/live").iterdir())
