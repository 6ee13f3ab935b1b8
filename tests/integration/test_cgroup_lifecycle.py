"""cgroups of attempts are made, found, killed and removed, and nothing is left of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from joblet.cgroup import CgroupError, CgroupLimits, CgroupUsage, Mode
from joblet.cgroup.removal import remove_tree
from tests.integration.cgroup_attempts import PATIENCE, Attempts, hierarchy_of, modes_here, prepared, until

# Some leave their session and their parent; new ones are made all the time.
RESTLESS = "setsid sleep 600 & (sleep 600 &) & trap '' TERM; while :; do sleep 0.01; sleep 0.02 & done"
LIMITS = CgroupLimits(pids=64)


@pytest.fixture(params=modes_here())
def attempts(request: pytest.FixtureRequest) -> Iterator[Attempts]:
    with prepared(request.param) as attempts:
        yield attempts


def existing(attempts: Attempts, attempt_id: str) -> list[str]:
    return [path for path in attempts.hierarchy.directories(attempt_id) if os.path.exists(path)]


@pytest.mark.parametrize("how", ["kill", "kill_frozen"])
def test_a_kill_leaves_no_process_and_no_cgroup(attempts: Attempts, how: str) -> None:
    hierarchy = attempts.hierarchy
    process = attempts.start("restless-00000000-1", LIMITS, RESTLESS)
    until(lambda: len(hierarchy.processes("restless-00000000-1")) >= 4, within=30, what="four processes")

    getattr(hierarchy, how)("restless-00000000-1")

    assert process.wait(timeout=10 * PATIENCE) == -9
    hierarchy.remove("restless-00000000-1")
    assert existing(attempts, "restless-00000000-1") == []
    assert hierarchy.list_attempts() == []


def test_killing_one_attempt_spares_the_others(attempts: Attempts) -> None:
    hierarchy = attempts.hierarchy
    killed = attempts.start("one-00000000-1", LIMITS, "exec sleep 600")
    spared = attempts.start("one-00000000-2", LIMITS, "exec sleep 600")

    hierarchy.kill("one-00000000-1")

    assert killed.wait(timeout=10 * PATIENCE) == -9
    assert hierarchy.processes("one-00000000-2") == [spared.pid]
    assert hierarchy.list_attempts() == ["one-00000000-1", "one-00000000-2"]


def test_removal_waits_for_the_end_of_the_last_process(attempts: Attempts) -> None:
    attempts.start("ending-00000000-1", LIMITS, "exec sleep 0.3")
    attempts.hierarchy.remove("ending-00000000-1")
    assert existing(attempts, "ending-00000000-1") == []


def test_removal_of_what_still_has_processes_is_an_error_after_a_bounded_time(attempts: Attempts) -> None:
    process = attempts.start("stays-00000000-1", LIMITS, "exec sleep 600")
    with pytest.raises(CgroupError, match=f"still has processes after 0.2 s: {process.pid}"):
        remove_tree(attempts.hierarchy.directories("stays-00000000-1")[0], 0.2)


def test_cgroups_inside_an_attempts_own_are_killed_and_removed_with_it(attempts: Attempts) -> None:
    hierarchy = attempts.hierarchy
    process = attempts.start("nest-00000000-1", CgroupLimits(), "exec sleep 600")
    directory = hierarchy.directories("nest-00000000-1")[0]
    os.makedirs(f"{directory}/inner/most")
    Path(f"{directory}/inner/most/cgroup.procs").write_text(str(process.pid))
    assert hierarchy.processes("nest-00000000-1") == [process.pid]

    hierarchy.kill("nest-00000000-1")
    hierarchy.remove("nest-00000000-1")

    assert process.wait(timeout=10 * PATIENCE) == -9
    assert existing(attempts, "nest-00000000-1") == []


def test_killing_removing_and_reading_what_is_gone_does_nothing(attempts: Attempts) -> None:
    hierarchy = attempts.hierarchy
    hierarchy.kill("gone-00000000-1")
    hierarchy.remove("gone-00000000-1")
    assert hierarchy.processes("gone-00000000-1") == []
    usage = hierarchy.usage("gone-00000000-1")
    assert (usage.memory_bytes, usage.cpu_seconds, usage.pids) == (None, None, None)
    assert usage.oom_kills is CgroupUsage().oom_kills


def test_preparing_twice_changes_nothing(attempts: Attempts) -> None:
    before = {base: sorted(os.listdir(base)) for base in attempts.hierarchy.bases}
    attempts.hierarchy.prepare()
    assert {base: sorted(os.listdir(base)) for base in attempts.hierarchy.bases} == before


def test_a_base_in_use_stays(attempts: Attempts) -> None:
    attempts.start("user-00000000-1", LIMITS, "exec sleep 600")
    attempts.hierarchy.remove_base()
    assert existing(attempts, "user-00000000-1")


@pytest.mark.parametrize("mode", modes_here())
def test_a_parent_that_was_there_before_outlives_the_base(mode: Mode) -> None:
    hierarchy = hierarchy_of(mode)
    parent = os.path.dirname(hierarchy.bases[0])
    os.mkdir(parent)
    try:
        hierarchy.prepare()
        hierarchy.remove_base()
        assert os.path.isdir(parent)
        assert not os.path.exists(hierarchy.bases[0])
        assert not [base for base in hierarchy.bases[1:] if os.path.exists(os.path.dirname(base))]
    finally:
        os.rmdir(parent)


DELEGATED = """
import os, pathlib, sys
from joblet.cgroup import Mode
from tests.integration.cgroup_attempts import hierarchy_of
hierarchy = hierarchy_of(Mode(sys.argv[1]), sys.argv[2])
procs = pathlib.Path(hierarchy.bases[0], "cgroup.procs")
os.makedirs(procs.parent)
procs.write_text(str(os.getpid()))
hierarchy.prepare()
leaf = procs.parent / "daemon/cgroup.procs"
print(str(os.getpid()) in procs.read_text().split(), leaf.exists() and str(os.getpid()) in leaf.read_text().split())
print(*hierarchy.controllers)
"""


@pytest.mark.parametrize("mode", modes_here())
def test_a_daemon_that_sits_in_the_base_itself_makes_room_for_its_jobs(mode: Mode) -> None:
    """As a service manager starts it, with the base delegated to it."""
    base = f"/sys/fs/cgroup/joblet-test-{os.getpid()}-delegated.slice/joblet.service"
    try:
        answer = subprocess.run(
            [sys.executable, "-c", DELEGATED, mode, base], capture_output=True, text=True, timeout=60 * PATIENCE
        )
        assert answer.stderr == ""
        place, controllers = answer.stdout.splitlines()
        assert place == ("False True" if mode is Mode.V2 else "True False")
        assert {"cpu", "memory", "pids"} <= set(controllers.split())
    finally:
        for path in hierarchy_of(mode, base).bases:
            for directory in (f"{path}/inits", f"{path}/daemon", path, os.path.dirname(path)):
                if os.path.isdir(directory):
                    remove_tree(directory)


@pytest.mark.parametrize("mode", modes_here())
def test_a_stranger_in_the_way_of_the_controllers_is_left_alone_and_told(mode: Mode) -> None:
    """On v2 a cgroup with processes can't have controllers for its children."""
    base = f"/sys/fs/cgroup/joblet-test-{os.getpid()}-shared.slice/joblet.service"
    hierarchy = hierarchy_of(mode, base)
    parent = Path(hierarchy.bases[0]).parent
    with subprocess.Popen(["sleep", "600"]) as stranger:
        try:
            parent.mkdir()
            (parent / "cgroup.procs").write_text(str(stranger.pid))
            hierarchy.prepare()
            assert (parent / "cgroup.procs").read_text().split() == [str(stranger.pid)]
            problems = dict(hierarchy.unenforceable(CgroupLimits(cpu_percent=20, pids=5)))
            if mode is Mode.V2:
                assert set(problems) == {"cpu", "pids"}
                assert "the cpu controller cannot be switched on" in problems["cpu"]
                assert str(parent) in problems["cpu"]
            else:
                assert problems == {}
        finally:
            stranger.kill()
            stranger.wait()
            hierarchy.remove_base()
            for path in hierarchy.bases:
                remove_tree(os.path.dirname(path))


def test_an_id_that_would_lead_elsewhere_is_refused(attempts: Attempts) -> None:
    for attempt_id in ("../x", "a/b", "", ".", "..", "-a", "a\n", "A-b-1", "a b", "a" * 200):
        for call in (attempts.hierarchy.kill, attempts.hierarchy.remove, attempts.hierarchy.processes):
            with pytest.raises(CgroupError, match="not an attempt id"):
                call(attempt_id)
        with pytest.raises(CgroupError, match="not an attempt id"):
            attempts.hierarchy.plan(attempt_id, LIMITS)
