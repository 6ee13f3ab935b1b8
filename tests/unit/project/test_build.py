"""The build, as a user meets it: locked requirements, and an installation from the clone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import joblet
from tests.deployment_page import sections

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
def test_the_client_is_installed_as_the_page_on_deployment_says(tmp_path: Path) -> None:
    (block,) = [block for section in sections() for block in section.blocks if block.kind == "sh client"]
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        **dict.fromkeys(("PIP_QUIET", "PIP_NO_INPUT", "PIP_DISABLE_PIP_VERSION_CHECK"), "1"),
    }
    ended = subprocess.run(
        ["bash", "-euc", block.text], capture_output=True, text=True, check=False, cwd=REPOSITORY, env=environment
    )
    assert ended.returncode == 0, ended.stderr
    assert joblet.__version__ in ended.stdout
    daemon = subprocess.run([tmp_path / "joblet/bin/joblet", "--version"], capture_output=True, text=True, check=True)
    assert joblet.__version__ in daemon.stdout
