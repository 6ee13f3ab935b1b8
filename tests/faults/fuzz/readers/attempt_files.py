"""The other files of an attempt's directory: init's state, and what the daemon noted for the next one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from joblet.cgroup import CgroupLimits, IoLimits
from joblet.sandbox import exit_record
from jobletd.executor.local import attempt_files
from jobletd.executor.local.attempt_files import AttemptNotes
from tests.faults.fuzz.reader import Reader


def make(directory: Path) -> Reader:
    def read(data: bytes) -> bool:
        (directory / exit_record.STATE).write_bytes(data)
        (directory / attempt_files.ATTEMPT).write_bytes(data)
        state = attempt_files.read_state(str(directory))
        assert not attempt_files.lock_is_held(str(directory))
        if state is not None:
            attempt_files.start_time_of(state.pid)
            assert 0 <= state.pid < 1 << 31  # pidfd_open takes it
        notes = attempt_files.read_notes(str(directory))
        if notes is not None:
            attempt_files.write_notes(str(directory), notes)
            assert attempt_files.read_notes(str(directory)) == notes
            float(notes.words["grace"].removesuffix("s"))
            asdict(notes)
        return notes is not None or (state is not None and state.pid > 0)

    limits = CgroupLimits(cpu_percent=150.0, memory_bytes=1 << 20, pids=3, io=IoLimits("8:0", read_bytes=1))
    for number, one in enumerate((limits, CgroupLimits())):
        left_out = (("cpus", "0-1", "why"),) * number
        notes = AttemptNotes(1 << 20, one, left_out, {"memory": "max", "timeout": "", "grace": "10s"}, "1Gi", False, "")
        (directory / str(number)).mkdir()
        attempt_files.write_notes(str(directory / str(number)), notes)
    samples = [(directory / name / attempt_files.ATTEMPT).read_bytes() for name in ("0", "1")]
    state = b"exec 4711 123456 0d9b6f2e-57b8-4a5c-9f43-0a6c9a0cf1c2\n"
    tokens = [b"exec ", b"started ", b"null", b"{}", b"[]", b'"io": {}', b'"words"', b"true", b"NaN", b'"grace": "x"']
    return Reader(read=read, samples=[*samples, state, state + b"started 1700000000000000000\n"], tokens=tokens)
