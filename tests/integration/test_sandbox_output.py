"""Output: byte for byte, as it comes, bounded on disk, at speed."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.integration.host import eventually
from tests.integration.sandbox_attempts import Sandboxes, sandboxes

CRI_LINE = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) [FP] [^\n]*", re.DOTALL)


@pytest.fixture(scope="module")
def box() -> Iterator[Sandboxes]:
    with sandboxes() as made:
        yield made


def test_binary_output_comes_through_unharmed(box: Sandboxes) -> None:
    attempt = box.run(["/bin/sh", "-c", "head -c 2000000 /dev/urandom | tee data; sha256sum < data >&2"])
    assert hashlib.sha256(attempt.output()).hexdigest() == attempt.output("stderr").split()[0].decode()
    assert all(CRI_LINE.fullmatch(line) for line in attempt.lines)


def test_a_line_without_an_end_comes_in_parts(box: Sandboxes) -> None:
    attempt = box.run(["/bin/sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x"])
    assert attempt.output() == b"x" * 100_000
    assert max(len(line) for line in attempt.lines) <= 16384 + 64


def test_the_streams_are_kept_apart(box: Sandboxes) -> None:
    attempt = box.run(["/bin/sh", "-c", "printf 'a\\nb'; printf 'c\\nd' >&2"])
    assert (attempt.output("stdout"), attempt.output("stderr")) == (b"a\nb", b"c\nd")


def test_interactive_output_is_there_at_once(box: Sandboxes) -> None:
    attempt = box.start(["/bin/sh", "-c", "printf 'name? '; sleep 300"])
    eventually(lambda: attempt.output() == b"name? ", what="the question")


def test_dev_stdout_can_be_opened_by_any_user(box: Sandboxes) -> None:
    assert box.shell("echo here > /dev/stdout; echo there > /dev/stderr", uid=1000, gid=1000) == "here\n"


def test_what_is_kept_is_bounded_and_the_newest(box: Sandboxes) -> None:
    limit = 1 << 20
    attempt = box.run(["/usr/bin/seq", "1", "300000"], log_bytes=limit)
    assert sum(path.stat().st_size for path in attempt.directory.glob("out.log*")) <= limit
    assert len(list(attempt.directory.glob("out.log*"))) <= 4
    _, *numbers = map(int, attempt.output().split())  # the first may be the end of a line whose beginning is gone
    assert numbers == list(range(numbers[0], 300_001))
    assert len(numbers) > 10_000


def test_all_output_is_there_when_the_record_is(box: Sandboxes) -> None:
    expected = "".join(f"{number}\n" for number in range(1, 20001))
    for _ in range(10):
        assert box.shell("seq 1 20000") == expected


def test_output_that_cannot_be_written_is_counted_and_the_job_goes_on() -> None:
    with sandboxes() as box:
        small = box.root / "small"
        small.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], check=True)
        try:
            box.stop_launcher()
            box.start_launcher()  # which sees the mount
            record = box.run(["/bin/sh", "-c", "seq 1 100000; exit 4"], log_path=f"{small}/out.log").record()
            assert record["outcome"] == {"type": "exited", "code": 4}
            assert record["log_dropped_bytes"] > 400_000
            assert "No space left on device" in record["log_error"]
        finally:
            box.stop_launcher()
            subprocess.run(["umount", small], check=True)
