"""Figures from the kernel's texts, in bytes and seconds. The texts were read from Linux 6.18 and 6.1."""

from __future__ import annotations

from joblet.cgroup import CgroupUsage
from joblet.cgroup.v1 import V1Hierarchy
from joblet.cgroup.v2 import V2Hierarchy

BASE = "/sys/fs/cgroup/none.slice"
V1 = {
    "memory.usage_in_bytes": "409600\n",
    "memory.max_usage_in_bytes": "67108864\n",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
    "cpuacct.usage": "1500000000\n",
    "cpu.stat": "nr_periods 40\nnr_throttled 39\nthrottled_time 3211000000\nnr_bursts 0\nburst_time 0\n",
    "pids.current": "2\n",
    "blkio.throttle.io_service_bytes": (
        "254:0 Read 4096\n254:0 Write 8192\n254:0 Sync 12288\n254:0 Total 12288\n7:1 Read 4096\n7:1 Write 1\nTotal 12288\n"
    ),
}
V2 = {
    "memory.current": "409600\n",
    "memory.peak": "67108864\n",
    "memory.events": "low 0\nhigh 0\nmax 31\noom 1\noom_kill 3\noom_group_kill 1\n",
    "cpu.stat": "usage_usec 1500000\nuser_usec 1\nsystem_usec 2\nnr_periods 4\nnr_throttled 3\nthrottled_usec 3211000\n",
    "pids.current": "2\n",
    "io.stat": "254:0 rbytes=4096 wbytes=8192 rios=1 wios=1 dbytes=0 dios=0\n7:1 rbytes=4096 wbytes=1 rios=1 wios=1\n",
}
SAME = CgroupUsage(409600, 67108864, 1.5, 3.211, 2, 4096, 8192, 3)


def test_both_hierarchies_tell_the_same_figures() -> None:
    assert V1Hierarchy(BASE, {}, None).parse_usage(V1) == SAME
    assert V2Hierarchy(BASE).parse_usage(V2) == SAME


def test_of_an_attempt_that_an_earlier_version_launched_in_hybrid_mode_the_v2_tree_tells_the_cpu_time() -> None:
    raw = {"unified.cpu.stat": "usage_usec 250000\nuser_usec 1\n", "cpuacct.usage": "9"}
    assert V1Hierarchy(BASE, {}, "/cg/unified").parse_usage(raw).cpu_seconds == 0.25


def test_what_is_not_there_is_unknown_not_zero() -> None:
    assert V1Hierarchy(BASE, {}, None).parse_usage({}) == CgroupUsage()
    assert V2Hierarchy(BASE).parse_usage({"memory.peak": "", "cpu.stat": "garbage"}) == CgroupUsage()


def test_of_pressure_is_told_how_much_of_late_and_how_long_in_all() -> None:
    text = "some avg10=12.50 avg60=3.00 avg300=1.00 total=2500000\nfull avg10=9.00 avg60=0.00 avg300=0.00 total=1\n"
    raw = {"cpu.pressure": text, "memory.pressure": text.replace("12.50", "0.00").replace("2500000", "0")}
    usage = V2Hierarchy(BASE).parse_usage(raw)
    assert (usage.cpu_pressure, usage.cpu_pressure_seconds) == (12.5, 2.5)
    assert (usage.memory_pressure, usage.memory_pressure_seconds) == (0.0, 0.0)  # told, and none
    assert (usage.io_pressure, usage.io_pressure_seconds) == (None, None)  # not told


def test_a_loop_device_counts_where_there_is_no_disk_below_it() -> None:
    raw = {"io.stat": "7:1 rbytes=4096 wbytes=1 rios=1 wios=1\n"}
    usage = V2Hierarchy(BASE).parse_usage(raw)
    assert (usage.io_read_bytes, usage.io_write_bytes) == (4096, 1)


def test_a_disk_that_did_nothing_is_listed_without_figures() -> None:
    assert V2Hierarchy(BASE).parse_usage({"io.stat": "254:0 \n"}).io_read_bytes == 0
