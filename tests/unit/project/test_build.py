"""The build, as a user meets it: locked requirements, and an installation from the clone."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import joblet

REPOSITORY = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
RUN_TIME = PROJECT["project"]["dependencies"]
DEVELOPMENT = PROJECT["dependency-groups"]["dev"]


def normal_name(requirement: str) -> str:
    """The name of a requirement as indexes spell it, PEP 503."""
    name = re.match(r"[\w.-]+", requirement)
    assert name
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def locked(filename: str) -> dict[str, str]:
    """Name to version."""
    text = (REPOSITORY / filename).read_text()
    return {normal_name(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, flags=re.MULTILINE)}


def test_everything_that_is_asked_for_is_locked() -> None:
    assert {normal_name(requirement) for requirement in RUN_TIME} <= locked("requirements.lock").keys()
    assert {normal_name(requirement) for requirement in DEVELOPMENT} <= locked("requirements-dev.lock").keys()


def test_both_locks_agree() -> None:
    development = locked("requirements-dev.lock")
    assert locked("requirements.lock").items() <= development.items()


@pytest.mark.parametrize("filename", ["requirements.lock", "requirements-dev.lock"])
def test_every_locked_requirement_has_a_hash_and_no_place_it_comes_from(filename: str) -> None:
    text = (REPOSITORY / filename).read_text()
    for block in re.split(r"\n(?=[\w.-]+==)", text)[1:]:
        assert "--hash=sha256:" in block, block.splitlines()[0]
    assert not re.search(r"://|--index|--find-links|--trusted", text)


@pytest.mark.timeout(300)
def test_an_installation_from_the_clone_gives_both_commands(tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    pip = [
        str(environment / "bin/python"),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "install",
        "--quiet",
    ]
    subprocess.run([*pip, "--require-hashes", "-r", str(REPOSITORY / "requirements.lock")], check=True)
    subprocess.run([*pip, "--no-deps", "."], check=True, cwd=REPOSITORY)
    for command in ("joblet", "rnx"):
        ended = subprocess.run(
            [environment / "bin" / command, "--version"], capture_output=True, text=True, check=True, cwd="/"
        )
        assert joblet.__version__ in ended.stdout
