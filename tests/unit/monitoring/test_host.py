"""Rates between two looks at the host's counters."""

from __future__ import annotations

from pathlib import Path

from jobletd.monitoring.host import HostLook, HostRates, disks, pressures


def look(at: float, busy: tuple[float, ...], total: tuple[float, ...], read: int = 0, sent: int = 0) -> HostLook:
    return HostLook(at, busy, total, disk_read=read, disk_written=0, received=0, sent=sent)


def test_each_core_has_its_share_and_together_they_have_the_mean() -> None:
    rates = HostRates.between(look(10, (5, 1), (10, 10)), look(12, (7, 1), (12, 12)))
    assert rates.seconds == 2
    assert rates.cpu_percent_each == (100.0, 0.0)
    assert rates.cpu_percent == 50.0


def test_bytes_are_told_by_the_second_and_never_less_than_none() -> None:
    rates = HostRates.between(look(0, (), (), read=1000, sent=50), look(4, (), (), read=5000, sent=10))
    assert (rates.disk_read, rates.sent) == (1000, 0)


def test_no_time_between_two_looks_is_no_fault() -> None:
    same = look(1, (1,), (2,))
    assert HostRates.between(same, same).cpu_percent == 0.0


def test_a_file_system_is_shown_once(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    found = disks([str(tmp_path), str(tmp_path / "sub")])
    assert [disk.path for disk in found] == [str(tmp_path)]
    assert 0 < found[0].used_bytes < found[0].size_bytes


def test_the_kernels_own_counters_are_taken() -> None:
    taken = HostLook.take()
    assert len(taken.busy) == len(taken.total) >= 1
    assert all(0 <= busy <= total for busy, total in zip(taken.busy, taken.total, strict=True))


def test_pressure_is_what_the_kernel_says_of_the_last_ten_seconds(tmp_path: Path) -> None:
    text = "some avg10=12.50 avg60=0.03 avg300=0.02 total=1\nfull avg10=3.00 avg60=0.00 avg300=0.00 total=2\n"
    (tmp_path / "cpu").write_text(text)
    (tmp_path / "io").write_text("")
    assert pressures(str(tmp_path)) == {"cpu": 12.5}
    assert pressures(str(tmp_path / "nosuch")) == {}
    assert all(0 <= percent <= 100 for percent in pressures().values())
