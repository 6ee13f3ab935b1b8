"""Exit records, as the daemon finds them: what a power cut, a damaged disk or another version may have left."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from joblet.cgroup import open_hierarchy
from joblet.sandbox import exit_record
from jobletd.executor.local import attempt_files
from jobletd.executor.local.limit_status import usage_of
from jobletd.executor.local.outcome import end_of
from jobletd.model import Usage
from jobletd.store.rows import end_from_json, end_to_json
from tests.faults.fuzz.reader import Reader


def make(directory: Path) -> Reader:
    hierarchy = open_hierarchy("/sys/fs/cgroup/joblet-test-fuzz.slice")  # makes nothing

    def parse(raw: Mapping[str, str]) -> Usage:
        return usage_of(hierarchy.parse_usage(raw))

    def read(data: bytes) -> bool:
        (directory / exit_record.EXIT).write_bytes(data)
        try:
            record = attempt_files.read_exit(str(directory))
            end = None if record is None else end_of(record, parse, {"memory": "1Mi", "timeout": "1s", "grace": "1s"})
        except ValueError as error:  # it is Lost then, and that is the message
            if exit_record.EXIT not in str(error):
                raise
            return False
        assert end_from_json(end_to_json(end)) == end  # it can be stored
        return end is not None

    tokens = [
        key.encode()
        for key in ('"version"', '"outcome"', '"type"', '"ended_ns"', '"usage"', "null", "true", "{}", "[]", "NaN")
    ]
    return Reader(
        read=read, samples=list(map(record_of, OUTCOMES)), tokens=[*tokens, b'"killed"', b'"\\ud800"', b'"x"', b"1.5"]
    )


OUTCOMES = (exit_record.exited(3), exit_record.killed(9), exit_record.not_started(127, "no"), exit_record.unknown("?"))
USAGE = {
    **{
        "cpu.stat": "usage_usec 7\nthrottled_usec 1\nthrottled_time 5\n",
        "memory.peak": "4096\n",
        "memory.events": "oom_kill 1\n",
    },
    **{
        "memory.max_usage_in_bytes": "9\n",
        "memory.oom_control": "oom_kill 0\n",
        "cpuacct.usage": "77\n",
        "io.stat": "8:0 rbytes=1 wbytes=2\n",
    },
    **{
        "blkio.throttle.io_service_bytes": "8:0 Read 1\n8:0 Write 2\nTotal 3\n",
        "pids.current": "1\n",
        "memory.current": "0\n",
        "cpu.pressure": "some avg10=1.25 avg60=0.00 avg300=0.00 total=7\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    },
}


def record_of(outcome: dict[str, object]) -> bytes:
    figures = {"cpu_seconds": 0.5, "log_dropped_bytes": 0, "log_error": "", "usage": USAGE}
    times = {"started_ns": 1_700_000_000_000_000_000, "ended_ns": 1_700_000_001_000_000_000}
    record = {
        "version": exit_record.VERSION,
        "attempt": "a-x-1",
        "boot_id": "b",
        "outcome": outcome,
        "cause": "",
        **times,
        **figures,
    }
    return json.dumps(record).encode()
