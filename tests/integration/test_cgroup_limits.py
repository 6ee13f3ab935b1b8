"""Each limit holds for real processes in real cgroups, is read back from the kernel, and can be changed in place."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from joblet.cgroup import CgroupError, CgroupLimits, IoLimits, LimitReading, Mode, device_of
from tests.integration.cgroup_attempts import PATIENCE, Attempts, modes_here, prepared, until

BUSY = "while :; do :; done"
IDLE = "exec sleep 600"
# A shell variable that doubles up to 512 MiB.
HOG = "x=0123456789abcdef; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do x=$x$x; done"
MIB = 1 << 20
TRIES = 10


@pytest.fixture(params=modes_here())
def attempts(request: pytest.FixtureRequest) -> Iterator[Attempts]:
    with prepared(request.param) as attempts:
        yield attempts


def by_name(readings: tuple[LimitReading, ...]) -> dict[str, LimitReading]:
    return {reading.name: reading for reading in readings}


@pytest.mark.parametrize(("percent", "tolerance"), [(20, 3), (2.5, 1)])
def test_a_busy_loop_gets_the_share_of_a_core_it_was_given(
    attempts: Attempts, percent: float, tolerance: float
) -> None:
    hierarchy = attempts.hierarchy
    attempts.start("busy-00000000-1", CgroupLimits(cpu_percent=percent), BUSY)
    until(lambda: bool(hierarchy.usage("busy-00000000-1").throttled_seconds), within=20, what="throttled once")

    shares: list[float] = []
    throttled = False
    # Others may take from it what it was given, and this process may read late: then it is measured once more.
    while not shares or ((abs(shares[-1] - percent) > tolerance or not throttled) and len(shares) < TRIES):
        before, started = hierarchy.usage("busy-00000000-1"), time.monotonic()
        time.sleep(4)  # the span that is measured
        after, seconds = hierarchy.usage("busy-00000000-1"), time.monotonic() - started
        assert before.cpu_seconds is not None
        assert after.cpu_seconds is not None
        shares.append((after.cpu_seconds - before.cpu_seconds) / seconds * 100)
        throttled = (after.throttled_seconds or 0) > (before.throttled_seconds or 0)
    assert abs(shares[-1] - percent) <= tolerance, shares
    assert throttled


def test_a_memory_hog_is_killed_at_its_limit_and_counted(attempts: Attempts) -> None:
    process = attempts.start("hog-00000000-1", CgroupLimits(memory_bytes=64 * MIB), HOG)

    assert process.wait(timeout=20 * PATIENCE) == -9
    usage = attempts.hierarchy.usage("hog-00000000-1")
    assert usage.oom_kills in (1, 2)  # v2 counts the victim once more as one of its group
    assert usage.memory_peak_bytes is not None
    assert 48 * MIB < usage.memory_peak_bytes <= 64 * MIB


def test_more_processes_than_allowed_cannot_be_made(attempts: Attempts) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 600 & done; wait"
    attempts.start("forks-00000000-1", CgroupLimits(pids=8), script).wait(timeout=20 * PATIENCE)

    assert len(attempts.hierarchy.processes("forks-00000000-1")) == 7  # and the shell, which gave up
    assert attempts.hierarchy.usage("forks-00000000-1").pids == 7


def test_limits_are_read_back_from_the_kernel(attempts: Attempts) -> None:
    limits = CgroupLimits(cpu_percent=150, memory_bytes=64 * MIB, swap_bytes=0, pids=32)
    attempts.start("read-00000000-1", limits, IDLE)

    readings = by_name(attempts.hierarchy.read_limits("read-00000000-1", limits))
    assert {name: reading.effective for name, reading in readings.items()} == {
        "cpu": "150%",
        "memory": "64Mi",
        "swap": "0",
        "pids": "32",
    }
    assert all(reading.enforced for reading in readings.values())


def test_a_size_is_read_back_as_the_kernel_rounds_it(attempts: Attempts) -> None:
    limits = CgroupLimits(memory_bytes=64 * MIB + 1, cpu_percent=33.333333)
    attempts.start("round-00000000-1", limits, IDLE)

    readings = by_name(attempts.hierarchy.read_limits("round-00000000-1", limits))
    assert (readings["memory"].asked, readings["memory"].effective) == (str(64 * MIB + 1), "64Mi")
    assert readings["memory"].enforced
    assert readings["cpu"].enforced


def test_the_cores_are_limited_or_it_is_said_that_they_cannot_be(attempts: Attempts) -> None:
    hierarchy = attempts.hierarchy
    limits = CgroupLimits(cpus="0")
    process = attempts.start("cores-00000000-1", limits, IDLE)

    reading = by_name(hierarchy.read_limits("cores-00000000-1", limits))["cpus"]
    if "cpuset" in hierarchy.controllers:
        assert hierarchy.unenforceable(limits) == ()
        assert os.sched_getaffinity(process.pid) == {0}
        assert (reading.effective, reading.enforced) == ("0", True)
    else:
        why = "this host has no cpuset controller (cgroup v2)"
        assert hierarchy.unenforceable(limits) == (("cpus", why),)
        assert (reading.effective, reading.enforced, reading.message) == ("all", False, why)


def test_a_core_that_is_not_there_is_unenforceable(attempts: Attempts) -> None:
    ((name, why),) = attempts.hierarchy.unenforceable(CgroupLimits(cpus="0,4095"))
    assert name == "cpus"
    assert ("CPU 4095 is not there" in why) == ("cpuset" in attempts.hierarchy.controllers)


def test_a_disk_that_is_not_there_is_unenforceable(attempts: Attempts) -> None:
    limits = CgroupLimits(io=IoLimits("4000:1", read_bytes=MIB))
    assert attempts.hierarchy.unenforceable(limits) == (("io", "this host has no disk 4000:1"),)


def disk_and_file(directory: Path) -> tuple[str, Path] | None:
    """A disk and something on it to read: a file, or the guest's own empty disk; None where there is none."""
    try:
        device = device_of(str(directory))
    except CgroupError as error:
        assert error.what.startswith("lies on no disk of this host")  # noqa: PT017
        if "GUEST_DISK" not in os.environ:
            return None
        disk = Path(os.environ["GUEST_DISK"])
        return f"{os.major(disk.stat().st_rdev)}:{os.minor(disk.stat().st_rdev)}", disk
    file = directory / "data"
    file.write_bytes(os.urandom(4 * MIB))
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
    return device, file


def test_reading_from_a_disk_is_slowed_down_to_the_limit_and_counted(attempts: Attempts, tmp_path: Path) -> None:
    found = disk_and_file(tmp_path)
    if found is None:  # a guest without a disk: that has been said by device_of
        return
    device, file = found
    limits = CgroupLimits(io=IoLimits(device, read_bytes=2 * MIB, write_ops=500))
    started = time.monotonic()
    process = attempts.start("disk-00000000-1", limits, f"dd if={file} of=/dev/null bs=256k count=16 iflag=direct")

    assert process.wait(timeout=30 * PATIENCE) == 0
    assert 1.5 < time.monotonic() - started < 10 * PATIENCE
    usage = attempts.hierarchy.usage("disk-00000000-1")
    assert usage.io_read_bytes is not None
    assert 4 * MIB <= usage.io_read_bytes < 8 * MIB
    readings = by_name(attempts.hierarchy.read_limits("disk-00000000-1", limits))
    assert {name: reading.effective for name, reading in readings.items()} == {"io.read": "2Mi", "io.writeOps": "500"}
    assert all(reading.enforced for reading in readings.values())

    attempts.hierarchy.apply_limits("disk-00000000-1", CgroupLimits())
    lifted = attempts.hierarchy.read_limits("disk-00000000-1", limits)
    assert {reading.effective for reading in lifted} == {"max"}


def test_limits_of_a_running_attempt_change_in_place(attempts: Attempts) -> None:
    hierarchy = attempts.hierarchy
    process = attempts.start("change-00000000-1", CgroupLimits(memory_bytes=64 * MIB, pids=8), IDLE)
    steps = [
        CgroupLimits(cpu_percent=20, memory_bytes=128 * MIB, swap_bytes=16 * MIB, pids=16),
        CgroupLimits(cpu_percent=0.5, memory_bytes=96 * MIB, swap_bytes=128 * MIB, pids=4),
        CgroupLimits(cpu_percent=250, memory_bytes=32 * MIB),
        CgroupLimits(memory_bytes=256 * MIB, pids=1000),
    ]
    for limits in steps:
        hierarchy.apply_limits("change-00000000-1", limits)
        readings = hierarchy.read_limits("change-00000000-1", limits)
        assert readings
        assert all(reading.enforced for reading in readings), readings
    assert process.poll() is None


def test_a_limit_that_is_left_out_is_lifted(attempts: Attempts) -> None:
    hierarchy = attempts.hierarchy
    limits = CgroupLimits(cpu_percent=20, memory_bytes=64 * MIB, pids=8)
    attempts.start("lift-00000000-1", limits, IDLE)

    hierarchy.apply_limits("lift-00000000-1", CgroupLimits())

    readings = by_name(hierarchy.read_limits("lift-00000000-1", limits))
    assert {name: readings[name].effective for name in ("cpu", "memory", "pids")} == dict.fromkeys(
        ("cpu", "memory", "pids"), "max"
    )
    assert not any(readings[name].enforced for name in ("cpu", "memory", "pids"))


def test_cores_are_given_and_taken_in_place(attempts: Attempts) -> None:
    hierarchy = attempts.hierarchy
    process = attempts.start("pin-00000000-1", CgroupLimits(), IDLE)
    all_cpus = os.sched_getaffinity(process.pid)

    hierarchy.apply_limits("pin-00000000-1", CgroupLimits(cpus="0"))
    pinned = os.sched_getaffinity(process.pid)
    hierarchy.apply_limits("pin-00000000-1", CgroupLimits())

    assert pinned == ({0} if "cpuset" in hierarchy.controllers else all_cpus)
    assert os.sched_getaffinity(process.pid) == all_cpus


def test_memory_in_use_is_not_silently_kept_above_a_lower_limit(attempts: Attempts) -> None:
    hierarchy = attempts.hierarchy
    limits = CgroupLimits(memory_bytes=256 * MIB)
    hold = f"{HOG.replace(' 22 23 24 25', '')}; echo held; sleep 600"
    process = attempts.start("hold-00000000-1", limits, hold)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    lower = replace(limits, memory_bytes=16 * MIB, pids=5)

    if hierarchy.mode is Mode.V2:  # what cannot be taken back is killed
        hierarchy.apply_limits("hold-00000000-1", lower)
        assert process.wait(timeout=20 * PATIENCE) == -9
    else:  # the kernel refuses, and the old limits stay
        with pytest.raises(CgroupError, match="busy"):
            hierarchy.apply_limits("hold-00000000-1", lower)
        readings = by_name(hierarchy.read_limits("hold-00000000-1", lower))
        assert (readings["memory"].effective, readings["pids"].effective) == ("256Mi", "max")
        assert process.poll() is None


def test_changing_the_limits_of_an_attempt_that_is_gone_is_an_error_and_makes_nothing(attempts: Attempts) -> None:
    with pytest.raises(CgroupError, match="has ended"):
        attempts.hierarchy.apply_limits("gone-00000000-1", CgroupLimits(cpus="0", pids=3))
    assert attempts.hierarchy.list_attempts() == []


def test_the_figures_in_the_record_are_those_of_the_cgroup(attempts: Attempts) -> None:
    hierarchy = attempts.hierarchy
    limits = CgroupLimits(memory_bytes=64 * MIB, pids=8)
    attempts.start("figures-00000000-1", limits, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done").wait(
        timeout=20 * PATIENCE
    )

    raw = {key: Path(path).read_text() for key, path in hierarchy.plan("figures-00000000-1", limits)["usage"].items()}
    usage, asked = hierarchy.parse_usage(raw), hierarchy.usage("figures-00000000-1")
    # What is charged still falls by itself: processors give back what they had charged ahead.
    assert replace(usage, memory_bytes=None) == replace(asked, memory_bytes=None)
    assert usage.memory_bytes is not None
    assert usage.cpu_seconds is not None
    assert 0 < usage.cpu_seconds < 10 * PATIENCE
    assert (usage.pids, usage.oom_kills) == (0, 0)
    assert usage.memory_peak_bytes
