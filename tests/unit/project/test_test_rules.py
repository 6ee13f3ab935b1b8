"""The rules of tests/strictness.py, seen from outside: a pytest of its own on a small suite."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]


def run_suite(
    directory: Path, source: str, *options: str, name: str = "test_suite.py", **environment: str
) -> tuple[int, str]:
    """Run these tests under our hooks. Returns pytest's status and what it printed."""
    (directory / "conftest.py").write_text((REPOSITORY / "tests/conftest.py").read_text())
    (directory / name).parent.mkdir(exist_ok=True)
    (directory / name).write_text("import pytest\n\n" + dedent(source))
    config = ["-p", "no:cacheprovider", "-c", str(REPOSITORY / "pyproject.toml")]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *config, *options, directory],
        cwd=REPOSITORY,
        env={**os.environ, "JOBLET_TEST_GUEST": "0", "JOBLET_TEST_PATIENCE": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout + ended.stderr


def test_a_skipped_test_fails_the_run_and_says_why(tmp_path: Path) -> None:
    status, output = run_suite(
        tmp_path,
        """
        def test_that_asks_for_more_than_there_is():
            pytest.skip("no such device")

        @pytest.mark.skip(reason="later")
        def test_that_is_put_off(): ...
        """,
    )
    assert status == 1
    assert "1 failed, 1 error in" in output
    assert "skipped (Skipped: no such device), and here a skipped test is a failed one" in output


def test_a_module_that_skips_itself_fails_the_run(tmp_path: Path) -> None:
    status, output = run_suite(tmp_path, 'pytest.importorskip("no_such_module")\n')
    assert status != 0
    assert "a skipped test is a failed one" in output


def test_an_expected_failure_passes_only_if_it_is_strict(tmp_path: Path) -> None:
    source = """
        @pytest.mark.xfail(reason="known", strict={strict})
        def test_of_a_known_fault():
            assert False
        """
    status, output = run_suite(tmp_path, source.format(strict=True))
    assert (status, "1 xfailed" in output) == (0, True), output
    status, output = run_suite(tmp_path, source.format(strict=False))
    assert (status, "1 failed" in output) == (1, True), output


def test_what_is_native_only_is_deselected_in_the_guest_in_plain_sight(tmp_path: Path) -> None:
    source = """
        @pytest.mark.native_only(reason="the guest has one CPU")
        def test_of_two_cpus(): ...

        def test_of_one(): ...
        """
    status, output = run_suite(tmp_path, source)
    assert (status, "2 passed" in output) == (0, True), output
    status, output = run_suite(tmp_path, source, JOBLET_TEST_GUEST="1")
    assert (status, "1 passed, 1 deselected" in output) == (0, True), output
    assert "test_of_two_cpus: the guest has one CPU" in output


def test_a_native_only_mark_without_a_reason_is_refused(tmp_path: Path) -> None:
    status, output = run_suite(tmp_path, "@pytest.mark.native_only\ndef test_of_something(): ...\n")
    assert (status, "needs a reason" in output) == (4, True), output


def test_a_patient_run_stretches_the_timeouts_of_single_tests(tmp_path: Path) -> None:
    source = """
        import time

        @pytest.mark.timeout(0.2)
        def test_of_a_slow_machine():
            time.sleep(0.4)
        """
    status, output = run_suite(tmp_path, source)
    assert (status, "Timeout" in output) == (1, True), output
    status, output = run_suite(tmp_path, source, JOBLET_TEST_PATIENCE="50")
    assert status == 0, output


@pytest.mark.parametrize("options", [[], ["-n", "2"]], ids=["in one process", "in two workers"])
def test_what_a_test_leaves_behind_fails_the_run_and_is_named(tmp_path: Path, options: list[str]) -> None:
    source = """
        import tempfile

        def test_that_cleans_up():
            tempfile.TemporaryDirectory(prefix="joblet-kept-").cleanup()

        def test_that_does_not():
            tempfile.mkdtemp(prefix="joblet-left-")
    """
    (temporary := tmp_path / "tmp").mkdir()
    name = "integration/test_suite.py"
    status, output = run_suite(
        tmp_path, source, *options, name=name, TMPDIR=str(temporary), JOBLET_TEST_PATIENCE="0.01"
    )
    (left,) = temporary.glob("joblet-left-*")
    assert (status, output.count(f"file {left}\n"), "2 passed" in output) == (1, 1, True), output
