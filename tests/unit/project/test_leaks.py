"""The check that ends a session of integration tests sees what is left, and nothing else."""

from __future__ import annotations

import os
import subprocess
import tempfile

import pytest

from tests.leaks import SESSION, VARIABLE, LeakCheck


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> LeakCheck:
    monkeypatch.setenv(VARIABLE, "")  # so that it is put back as it was
    return LeakCheck()


def test_a_process_that_a_test_left_is_found(check: LeakCheck) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            os.write(process.stdin.fileno(), b"there?")
            assert process.stdout.read(6) == b"there?"  # while it is being executed, /proc shows no environment yet
            found = check.leaks(patience=0)
        finally:
            process.kill()
    process_leak = f"process {process.pid} cat"
    assert process_leak in found
    assert process_leak not in check.leaks(patience=0)


def test_a_directory_of_this_session_is_found_and_one_of_another_is_not(check: LeakCheck) -> None:
    with (
        tempfile.TemporaryDirectory(prefix=f"{SESSION}-") as ours,
        tempfile.TemporaryDirectory(prefix="joblet-test-0-"),
    ):
        found = check.leaks(patience=0)
    assert f"file {ours}" in found
    assert not [leak for leak in found if "joblet-test-0-" in leak]


def test_what_was_there_before_does_not_count() -> None:
    with tempfile.TemporaryDirectory(prefix="joblet-left-by-somebody-") as before:
        check = LeakCheck()
        assert f"file {before}" not in check.leaks(patience=0)
        with tempfile.TemporaryDirectory(prefix="joblet-new-") as new:
            assert f"file {new}" in check.leaks(patience=0)


def test_the_session_name_is_not_that_of_a_longer_pid(check: LeakCheck) -> None:
    with tempfile.TemporaryDirectory(prefix=f"{SESSION}9-") as other:
        assert f"file {other}" not in check.leaks(patience=0)
