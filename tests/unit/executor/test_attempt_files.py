"""What an attempt's directory says, whole or torn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from joblet.cgroup import CgroupLimits, IoLimits
from joblet.sandbox import exit_record
from jobletd.executor.local import attempt_files
from jobletd.executor.local.attempt_files import AttemptNotes, InitState


def test_notes_come_back_as_they_were_written(tmp_path: Path) -> None:
    limits = CgroupLimits(cpu_percent=50, memory_bytes=1 << 20, io=IoLimits("8:0", read_bytes=5))
    notes = AttemptNotes(7, limits, (("cpus", "0-1", "no cpuset"),), {"memory": "1Mi", "grace": "10s"}, "16Mi")
    attempt_files.write_notes(str(tmp_path), notes)
    assert attempt_files.read_notes(str(tmp_path)) == notes


def test_no_state_or_an_empty_one_means_that_nothing_was_executed(tmp_path: Path) -> None:
    assert attempt_files.read_state(str(tmp_path)) is None
    (tmp_path / "state").touch()
    assert attempt_files.read_state(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("exec 12 345 boot\n", InitState(12, 345, "boot", None)),
        ("exec 12 345 boot\nstarted 99\n", InitState(12, 345, "boot", 99)),
        ("exec 12", InitState(0, 0, "", None)),
    ],
)
def test_a_state_file_means_that_it_may_have_been_executed(tmp_path: Path, text: str, state: InitState) -> None:
    (tmp_path / "state").write_text(text)
    assert attempt_files.read_state(str(tmp_path)) == state


TORN = (
    "",
    "{",
    '{"version": 1}',
    "[]",
    '{"version":1,"outcome":"x"}',
    "[" * 5000,
    '{"version":' + "9" * 5000 + "}",
    "\0" * 99,
)


@pytest.mark.parametrize("text", TORN)
def test_what_a_power_cut_leaves_of_a_record_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "exit.json").write_text(text)
    assert attempt_files.read_exit(str(tmp_path)) is None


def test_a_record_of_another_version_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "exit.json").write_text('{"version": 2, "outcome": {"type": "exited", "code": 0}}')
    with pytest.raises(ValueError, match="version 2"):
        attempt_files.read_exit(str(tmp_path))


def test_the_record_that_init_writes_is_read_back(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        record = {"outcome": exit_record.not_started(127, 'a "quoted"\n\x01 line \\'), "cause": "", "cpu_seconds": 0.25}
        record |= {"ended_ns": 7, "log_error": "f\udcffle"}
        exit_record.write(fd, dict(record), durable=True)
    finally:
        os.close(fd)
    assert attempt_files.read_exit(str(tmp_path)) == {"version": 1, **record, "log_error": "f?le"}


HOLDING = """
import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX)
os.write(1, b"x")
os.read(0, 1)
"""


def test_the_lock_is_held_as_long_as_its_holder_lives(tmp_path: Path) -> None:
    assert not attempt_files.lock_is_held(str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING, tmp_path / "state"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        assert holder.stdout.read(1) == b"x"
        assert attempt_files.lock_is_held(str(tmp_path))
        holder.stdin.close()
    assert holder.returncode == 0
    assert not attempt_files.lock_is_held(str(tmp_path))


EXITED: dict[str, object] = {"type": "exited", "code": 3}
WHOLE: dict[str, object] = {"version": 1, "outcome": EXITED, "cause": "", "started_ns": 5, "ended_ns": 7, "usage": {}}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"outcome": {"type": "exited"}}, "outcome"),
        ({"outcome": {"type": "killed", "signal": "9"}}, "outcome"),
        ({"outcome": {"type": ["exited"], "code": 3}}, "outcome"),
        ({"outcome": {"type": "slept", "code": 3}}, "outcome"),
        ({"outcome": {"type": "exited", "code": True}}, "outcome"),
        ({"ended_ns": None}, "ended_ns"),
        ({"ended_ns": 2**63}, "ended_ns"),
        ({"started_ns": 1.5}, "started_ns"),
        ({"cpu_seconds": float("nan")}, "cpu_seconds"),
        ({"usage": {"memory.peak": 5}}, "usage"),
        ({"usage": [1]}, "usage"),
        ({"log_error": "\ud800"}, "log_error"),
        ({"reason": "Bored"}, "reason"),
    ],
)
def test_a_record_that_is_whole_and_makes_no_sense_says_where(
    tmp_path: Path, change: dict[str, object], named: str
) -> None:
    (tmp_path / "exit.json").write_text(json.dumps(WHOLE))
    assert attempt_files.read_exit(str(tmp_path)) == WHOLE
    (tmp_path / "exit.json").write_text(json.dumps({**WHOLE, **change}))
    with pytest.raises(ValueError, match=f"exit.json: is damaged: .*{named}"):
        attempt_files.read_exit(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("id_first", ["1", True, -1, 2**40, None]),
        ("limits", [{"io": {}}, {"pids": "3"}, {"cpu_percent": float("inf")}, {"x": 1}, [], None]),
        ("words", [{}, {"grace": "long"}, {"grace": 5}, {"grace": "nans"}, ["grace"]]),
        ("left_out", [[["a"]], [[1, 2, 3]], 7, "abc"]),
        ("disk", [5]),
        ("disk_in_memory", ["no"]),
        ("image", [None, "\ud800"]),
    ],
)
def test_notes_that_make_no_sense_are_none(tmp_path: Path, name: str, values: list[object]) -> None:
    notes = AttemptNotes(7, CgroupLimits(pids=3), (), {"grace": "10s"}, "")
    attempt_files.write_notes(str(tmp_path), notes)
    path = tmp_path / attempt_files.ATTEMPT
    whole = json.loads(path.read_text())
    for value in values:
        path.write_text(json.dumps({**whole, name: value}))
        assert attempt_files.read_notes(str(tmp_path)) is None, value


@pytest.mark.parametrize(
    "text", ["exec 99999999 1 b\n", f"exec {'9' * 5000} 1 b\n", f"exec 12 {'9' * 5000} b\n", "exec \u00b2 1 b\n"]
)
def test_a_pid_that_cannot_be_one_is_nobodys(tmp_path: Path, text: str) -> None:
    (tmp_path / "state").write_text(text)
    assert attempt_files.read_state(str(tmp_path)) == InitState(0, 0, "", None)


def test_the_range_of_ids_is_known_from_two_places(tmp_path: Path) -> None:
    assert attempt_files.held_ids(str(tmp_path)) == set()
    attempt_files.begin_notes(str(tmp_path), AttemptNotes(131072, CgroupLimits(), (), {"grace": "10s"}, ""))
    assert attempt_files.held_ids(str(tmp_path)) == {131072}
    attempt_files.write_notes(str(tmp_path), AttemptNotes(65536, CgroupLimits(), (), {"grace": "10s"}, ""))
    assert attempt_files.held_ids(str(tmp_path)) == {131072, 65536}
    (tmp_path / "attempt.json").write_bytes(b"\0" * 100)
    assert attempt_files.held_ids(str(tmp_path)) == {131072}
    (tmp_path / "ids-131072").unlink()
    assert attempt_files.held_ids(str(tmp_path)) == set()
    for nonsense in ("-1", "0", str(1 << 32), "x", "9" * 200):
        (tmp_path / "ids").symlink_to(nonsense)
        (tmp_path / f"ids-{nonsense}").touch()
        assert attempt_files.held_ids(str(tmp_path)) == set()
        (tmp_path / "ids").unlink()
    (tmp_path / "ids").symlink_to("131072")  # as an earlier version wrote it
    assert attempt_files.held_ids(str(tmp_path)) == {131072}


def test_a_directory_goes_with_all_files_in_it_and_not_with_a_directory_in_it(tmp_path: Path) -> None:
    attempt = tmp_path / "attempt"
    attempt.mkdir()
    attempt_files.begin_notes(str(attempt), AttemptNotes(131072, CgroupLimits(), (), {"grace": "10s"}, ""))
    (attempt / "exit.json").touch()
    (attempt / "below").mkdir()
    assert not attempt_files.remove(str(attempt))
    (attempt / "below").rmdir()
    assert attempt_files.remove(str(attempt)) and not attempt.exists()
    assert attempt_files.remove(str(attempt)), "it is gone already"
