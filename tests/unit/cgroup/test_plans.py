"""Plans are plain data, the same for the same question, and name nothing outside the base. No kernel is asked."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joblet.cgroup import CgroupError, CgroupLimits, IoLimits, Mode
from joblet.cgroup.hierarchy import Hierarchy
from joblet.cgroup.v1 import V1Hierarchy
from joblet.cgroup.v2 import V2Hierarchy

BASE = "/sys/fs/cgroup/none.slice/none.service"
MOUNTS = {name: f"/cg/{name}" for name in ("cpuset", "memory", "freezer", "blkio", "pids")} | {
    "cpu": "/cg/cpu,cpuacct",
    "cpuacct": "/cg/cpu,cpuacct",
}
FULL = CgroupLimits(20, "0-1", 64 << 20, 0, 32, IoLimits("8:0", read_bytes=1000, write_ops=5))


def hybrid() -> V1Hierarchy:
    return V1Hierarchy(BASE, MOUNTS, "/cg/unified")


def v1() -> V1Hierarchy:
    return V1Hierarchy(BASE, MOUNTS, None)


def test_controllers_mounted_together_are_joined_once() -> None:
    plan = v1().plan("a-b-1", CgroupLimits())
    assert plan["join"] == [
        f"/cg/{tree}/none.slice/none.service/job-a-b-1/tasks" for tree in ("pids", "memory", "cpu,cpuacct", "blkio")
    ]
    assert plan["write"] == []


def test_in_hybrid_mode_attempts_have_no_cgroup_in_the_v2_tree_where_all_inits_sit() -> None:
    plan = hybrid().plan("a-b-1", CgroupLimits())
    assert plan["init_into"] == "/cg/unified/none.slice/none.service/inits"
    assert plan["command_into"] is None
    assert plan["join"] == [f"{directory}/tasks" for directory in plan["mkdir"]]
    assert not any(directory.startswith("/cg/unified") for directory in plan["mkdir"])


def test_where_forks_cannot_be_stopped_there_is_a_freezer() -> None:
    without_pids = {name: mount for name, mount in MOUNTS.items() if name != "pids"}
    plan = V1Hierarchy(BASE, without_pids, None).plan("a-b-1", CgroupLimits())
    assert plan["mkdir"][0] == "/cg/freezer/none.slice/none.service/job-a-b-1"


def test_a_command_enters_its_cgroups_by_itself_but_in_v2() -> None:
    assert hybrid().entered_by_thread and v1().entered_by_thread
    assert not V2Hierarchy(BASE, "/cg").entered_by_thread


def test_a_view_has_each_directory_of_the_attempt_by_the_name_of_its_hierarchy() -> None:
    plan = hybrid().plan("a-b-1", FULL)
    view = hybrid().view(plan)
    assert list(view.values()) == plan["mkdir"] and view["memory"] == "/cg/memory/none.slice/none.service/job-a-b-1"
    unified = V2Hierarchy(BASE, "/cg")
    assert unified.view(unified.plan("a-b-1", FULL)) == {"": "/cg/none.slice/none.service/job-a-b-1"}


def test_in_pure_v1_no_directory_can_be_cloned_into() -> None:
    plan = v1().plan("a-b-1", FULL)
    assert (plan["init_into"], plan["command_into"]) == (None, None)


def test_every_limit_is_written_below_the_attempts_own_directories() -> None:
    for hierarchy in (hybrid(), v1()):
        plan = hierarchy.plan("a-b-1", FULL)
        for path, _, _ in plan["write"]:
            assert path.rsplit("/", 1)[0] in plan["mkdir"]
        assert {limit for _, _, limit in plan["write"]} == {"cpu", "cpus", "memory", "swap", "pids", "io"}
        names = [path.rsplit("/", 1)[1] for path, _, _ in plan["write"]]
        assert names.index("cpuset.mems") < names.index("cpuset.cpus")


def test_usage_is_quoted_only_from_directories_that_are_made() -> None:
    for hierarchy in (hybrid(), v1()):
        plan = hierarchy.plan("a-b-1", FULL)
        assert {path.rsplit("/", 1)[0] for path in plan["usage"].values()} <= set(plan["mkdir"])


def test_a_plan_goes_through_json() -> None:
    plan = hybrid().plan("a-b-1", FULL)
    assert json.loads(json.dumps(plan)) == {**plan, "write": [list(item) for item in plan["write"]]}


@given(st.text(max_size=20))
def test_no_text_makes_a_path_that_leads_elsewhere(attempt_id: str) -> None:
    for hierarchy in (hybrid(), V2Hierarchy(BASE, "/cg")):
        try:
            plan = hierarchy.plan(attempt_id, CgroupLimits())
        except CgroupError:
            continue
        assert all(path.endswith(f"/job-{attempt_id}") and path.count("/") <= 5 for path in plan["mkdir"])


def test_a_missing_controller_makes_its_limits_unenforceable() -> None:
    bare: Hierarchy = V1Hierarchy(BASE, {"memory": "/cg/memory"}, "/cg/unified")
    assert [name for name, _ in bare.unenforceable(FULL)] == ["cpu", "cpus", "pids", "io"]
    assert bare.unenforceable(CgroupLimits(memory_bytes=1 << 20)) == ()
    assert dict(bare.unenforceable(FULL))["io"] == "this host has no blkio controller (cgroup hybrid)"
    assert {limit for _, _, limit in bare.plan("a-b-1", FULL)["write"]} == {"memory", "swap"}
    assert dict(bare.unenforceable(CgroupLimits(pids=1))) == {
        "pids": "this host has no pids controller (cgroup hybrid)"
    }


@pytest.mark.parametrize("base", ["/sys/fs/cgroup", "/sys/fs/cgroup/..", "/tmp/x", "/sys/fs/cgroup/a/../../x"])
def test_a_base_outside_the_cgroup_file_system_is_refused(base: str) -> None:
    with pytest.raises(CgroupError, match="not a cgroup"):
        V1Hierarchy(base, MOUNTS, None)


def test_the_mode_follows_from_what_is_mounted() -> None:
    assert (hybrid().mode, v1().mode, V2Hierarchy(BASE, "/cg").mode) == (Mode.HYBRID, Mode.V1, Mode.V2)
