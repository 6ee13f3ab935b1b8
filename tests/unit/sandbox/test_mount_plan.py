"""The mount plan is data: what a job gets, in which order, without root."""

from __future__ import annotations

from typing import Any

import pytest

from joblet.sandbox import mounts
from joblet.sandbox.syscalls import MS_NODEV, MS_NOSUID
from joblet.sandbox.volumes import need_own_root

SPEC: dict[str, Any] = {
    "rootfs": "host",
    "script": None,
    "secrets": [],
    "network": "none",
    "tmp_bytes": 1024,
    "root_bytes": 4096,
    "id_base": 70000,
    "etc": {"hosts": "127.0.0.1 localhost\n"},
    "workspace": {"type": "tmpfs", "bytes": 1 << 20},
}


TREES: dict[str, Any] = {"rootfs": [7, 8], "workspace": 9}


def test_the_template_ends_read_only_and_takes_nothing_of_etc_but_what_is_listed() -> None:
    plan = mounts.plan_template("/t")
    assert plan[0][:2] == ("tmpfs", "/t") and plan[-1][:2] == ("read-only", "/t")
    sources = {operation[1] for operation in plan if operation[0] == "copy"}
    assert sources == {f"/etc/{name}" for name in mounts.ETC_COPIES}
    assert not {name for name in mounts.ETC_COPIES if name.startswith(("shadow", "passwd", "ssh"))}


def test_only_system_directories_of_the_host_are_bound() -> None:
    bound = {operation[1] for operation in mounts.plan_template("/t") if operation[0] in ("system", "bind")}
    assert bound == {f"/{name}" for name in mounts.SYSTEM_DIRECTORIES}


def test_proc_is_mounted_before_it_is_masked() -> None:
    names = [operation[0] for operation in mounts.plan_spare("/t")]
    assert names[0] == "proc"
    assert {"mask", "protect", "devpts"} <= set(names)
    masked = {operation[1] for operation in mounts.plan_spare("/t") if operation[0] == "mask"}
    assert {f"/t/proc/{name}" for name in ("kcore", "keys", "timer_list", "sched_debug", "scsi", "acpi")} <= masked
    protected = {operation[1] for operation in mounts.plan_spare("/t") if operation[0] == "protect"}
    assert protected == {f"/t/proc/{name}" for name in ("bus", "fs", "irq", "sys", "sysrq-trigger")}


def test_a_job_adds_its_places_to_write_to() -> None:
    plan, root = mounts.plan_job("/t", SPEC, {})
    assert root == "/t"
    places = [operation[1] for operation in plan if operation[0] == "tmpfs"]
    assert places == ["/t/tmp", "/t/dev/shm", "/t/work"] and plan[-1][1] == "/t/work"
    assert ("file", "/t/run/joblet/etc/hosts", "127.0.0.1 localhost\n") in plan
    assert all(operation[3] & MS_NOSUID and operation[3] & MS_NODEV for operation in plan if operation[0] == "tmpfs")


def test_everything_in_memory_is_bounded_in_bytes_and_in_files() -> None:
    plan, _ = mounts.plan_job("/t", {**SPEC, "rootfs": "/images/one"}, TREES)
    options = [operation[2] for operation in plan if operation[0] == "tmpfs"]
    assert len(options) == 5 and all("size=" in text and "nr_inodes=" in text for text in options)
    assert mounts.tmpfs_options(1 << 30, "1777") == "mode=1777,size=1073741824,nr_inodes=262144"
    assert mounts.tmpfs_options(4096, "0755").endswith("nr_inodes=1024")


def test_a_root_of_its_own_is_an_overlay_that_leaves_the_directory_untouched() -> None:
    plan, root = mounts.plan_job("/t", {**SPEC, "rootfs": "/images/one"}, TREES)
    overlay = next(operation for operation in plan if operation[0] == "overlay")
    assert overlay[1:4] == ([7, 8], "/t/run", root)
    assert ("proc", f"{root}/proc") in plan


def test_in_a_root_of_its_own_nothing_is_mounted_or_written_before_it_is_known_to_be_no_link() -> None:
    plan, root = mounts.plan_job("/t", {**SPEC, "rootfs": "/images/one"}, TREES)
    touched = [str(argument) for operation in plan for argument in operation[1:]]
    for place in mounts.PLACES:
        first = next(path for path in touched if path == f"{root}/{place}" or path.startswith(f"{root}/{place}/"))
        assert plan[[f"{root}/{place}" in map(str, operation) for operation in plan].index(True)][0] == "place", first


def test_the_plan_is_the_same_each_time() -> None:
    assert mounts.plan_job("/t", SPEC, {}) == mounts.plan_job("/t", SPEC, {})
    assert mounts.plan_template("/t") == mounts.plan_template("/t")


def test_a_volume_outside_of_the_jobs_own_directories_takes_a_root_of_its_own() -> None:
    _, root = mounts.plan_job("/t", SPEC, {})
    plan, own = mounts.plan_job("/t", {**SPEC, "own_root": True, "volumes": []}, {})
    assert (root, own) == ("/t", "/t/mnt")
    assert plan[0] == ("own-root", "/t", "/t/mnt")
    assert plan[-1][:2] == ("tmpfs", "/t/mnt/work")


def test_a_workspace_on_an_image_is_a_mount_that_was_nowhere_before() -> None:
    plan, _ = mounts.plan_job("/t", {**SPEC, "workspace": {"type": "loop", "image": "/images/one"}}, TREES)
    assert plan[-1] == ("attach", 9, "/t/work", MS_NOSUID | MS_NODEV)


@pytest.mark.parametrize(
    ("path", "needed"), [("/work/a", False), ("/tmp/a", False), ("/data", True), ("/opt/a", True), ("/workshop", True)]
)
def test_which_volumes_need_a_root_of_their_own(path: str, needed: bool) -> None:
    assert need_own_root([{"path": path}]) is needed
