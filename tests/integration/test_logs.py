"""Output: complete, bounded, followed as it comes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from joblet.api.v1 import job_pb2
from tests.integration.host import PATIENCE, Host, eventually, job_host


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host() as host:
        yield host


def test_binary_output_and_lines_without_an_end_come_through_unharmed(host: Host) -> None:
    host.apply("""
        apiVersion: joblet/v1
        kind: Job
        metadata: {name: binary}
        spec:
          script: |
            head -c 3000000 /dev/urandom > data
            sha256sum < data >&2
            cat data
    """)
    assert host.finished("binary").phase == "COMPLETED"
    expected = host.log("binary", stream="stderr").decode().split()[0]
    output = host.log("binary")
    assert len(output) == 3000000 and hashlib.sha256(output).hexdigest() == expected


def test_following_starts_at_once_and_ends_with_the_run(host: Host) -> None:
    host.apply("""
        apiVersion: joblet/v1
        kind: Job
        metadata: {name: followed}
        spec:
          script: |
            trap 'echo; echo end; exit 0' TERM
            printf 'no newline yet'
            while :; do sleep 0.05; done
    """)
    host.running("followed")
    batches = host.jobs.Logs(job_pb2.LogsRequest(ref="followed", follow=True), timeout=30 * PATIENCE)
    first = next(iter(batches)).entries[0]
    assert first.data == b"no newline yet" and first.partial
    host.jobs.Stop(job_pb2.StopRequest(ref="followed"), timeout=30 * PATIENCE)  # until then it goes on
    rest = b"".join(entry.data for batch in batches for entry in batch.entries)
    assert rest == b"\nend\n"
    assert host.finished("followed").phase == "STOPPED"


def test_kept_output_is_bounded_and_the_newest_stays(host: Host) -> None:
    host.apply("""
        apiVersion: joblet/v1
        kind: Job
        metadata: {name: flood}
        spec:
          command: [seq, "1", "2000000"]
          limits: {logs: 2Mi}
    """)
    run = host.finished("flood", within=60)
    assert run.phase == "COMPLETED"
    sizes = [path.stat().st_size for path in (host.root / "log/flood").iterdir()]
    assert 1 << 20 < sum(sizes) <= 2 << 20
    lines = host.log("flood").splitlines()
    assert lines[-1] == b"2000000"
    numbers = [int(line) for line in lines[1:]]
    assert numbers == list(range(numbers[0], 2000001))


def test_tail_and_since_select(host: Host) -> None:
    host.apply("""
        apiVersion: joblet/v1
        kind: Job
        metadata: {name: selected}
        spec:
          script: |
            trap 'echo late; exit 0' TERM
            seq 1 1000
            while :; do sleep 0.05; done
    """)
    host.running("selected")
    # Entries have the time at which they were read: the last one's is another, as the others are there before it.
    eventually(lambda: host.log("selected", follow=False).endswith(b"\n1000\n"), what="all that comes before")
    host.jobs.Stop(job_pb2.StopRequest(ref="selected"), timeout=30 * PATIENCE)
    host.finished("selected")

    def entries(**options: object) -> list[job_pb2.LogEntry]:
        request = job_pb2.LogsRequest(ref="selected", **options)  # type: ignore[arg-type]
        return [entry for batch in host.jobs.Logs(request, timeout=30 * PATIENCE) for entry in batch.entries]

    assert [entry.data for entry in entries(tail_lines=2)] == [b"1000\n", b"late\n"]
    everything = entries()
    assert len(everything) == 1001
    assert [entry.data for entry in entries(since=None)] == [entry.data for entry in everything]
    cut = job_pb2.LogsRequest(ref="selected")
    cut.since.FromNanoseconds(everything[-1].time_ns)
    late = [entry.data for batch in host.jobs.Logs(cut, timeout=30 * PATIENCE) for entry in batch.entries]
    assert late == [b"late\n"]


def test_the_two_streams_are_kept_apart(host: Host) -> None:
    host.apply("""
        apiVersion: joblet/v1
        kind: Job
        metadata: {name: streams}
        spec:
          script: |
            echo out; echo err >&2
    """)
    host.finished("streams")
    assert (host.log("streams"), host.log("streams", stream="stderr")) == (b"out\n", b"err\n")


def test_the_file_is_in_cri_format(host: Host) -> None:
    host.apply("""
        apiVersion: joblet/v1
        kind: Job
        metadata: {name: cri}
        spec: {command: [printf, "one\\\\ntwo"]}
    """)
    run = host.finished("cri")
    lines = (host.root / "log/cri" / f"{run.id}-1.log").read_text().splitlines()
    assert [line.split(" ", 3)[1:] for line in lines] == [["stdout", "F", "one"], ["stdout", "P", "two"]]
    assert len(lines[0].split(" ")[0]) == len("2026-01-02T03:04:05.123456789Z")
    eventually(lambda: host.log("cri") == b"one\ntwo")
