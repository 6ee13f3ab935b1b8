"""A daemon does not start with keys, state or backups that others can read or exchange, and says how to mend it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from joblet.config import ConfigError, load_client_config
from joblet.config.server import load_server_config
from jobletd.file_modes import check_file_modes
from tests.integration.joblet_command import joblet

FILES = (
    "state/secret.key",
    "state/joblet.db",
    "config/ca.key",
    "config/rnx-config.yml",
    "config/rnx-config-viewer.yml",
    "state/backups/joblet-20260101T000000.000000000Z.joblet-backup",
)
DIRECTORIES = ("config", "state", "log", "run", "state/backups")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    assert joblet("init", "--root", tmp_path / "j").status == 0
    root = tmp_path / "j"
    (root / "state/backups").mkdir(0o700)
    for name in FILES:
        (root / name).touch(0o600)
    return root


def look(root: Path) -> None:
    path = str(root / "config/joblet-config.yml")
    check_file_modes(load_server_config(path, {}), path)


def mended(look: Callable[[], object], path: Path) -> None:
    """It is refused, the command that it names mends it, and it is taken."""
    with pytest.raises(ConfigError) as refused:
        look()
    assert refused.value.where == str(path) and refused.value.todo.startswith("ch")
    subprocess.run(["sh", "-c", refused.value.todo], check=True)
    look()


@pytest.mark.parametrize("name", ["config/joblet-config.yml", *FILES])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_with_keys_that_others_reach_is_refused(root: Path, name: str, mode: int) -> None:
    look(root)
    (root / name).chmod(mode)
    mended(lambda: look(root), root / name)


@pytest.mark.parametrize("name", DIRECTORIES)
@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_directory_that_others_change_is_refused(root: Path, name: str, mode: int) -> None:
    (root / name).chmod(mode)
    mended(lambda: look(root), root / name)


@pytest.mark.parametrize("name", ["config/joblet-config.yml", *FILES, *DIRECTORIES])
def test_what_belongs_to_somebody_else_is_refused(root: Path, name: str) -> None:
    os.chown(root / name, 1234, 1234)
    mended(lambda: look(root), root / name)


def test_keys_that_the_configuration_names_by_path_are_looked_at_too(root: Path, tmp_path: Path) -> None:
    config = root / "config/joblet-config.yml"
    text = config.read_text()
    certificate, key = tmp_path / "client.crt", tmp_path / "client.key"
    certificate.touch(0o644)
    key.touch(0o640)
    config.write_text(f"{text}  clientCertPath: {certificate}\n  clientKeyPath: {key}\n")
    mended(lambda: look(root), key)
    server = tmp_path / "server.key"
    server.touch(0o644)
    config.write_text("\n".join(_without_server_key(text)) + f"\n  serverKeyPath: {server}\n")
    mended(lambda: look(root), server)


def _without_server_key(text: str) -> list[str]:
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("  serverKey:"))
    end = next(number for number, line in enumerate(lines[start + 1 :], start + 1) if not line.startswith("    "))
    return lines[:start] + lines[end:]


def test_a_directory_in_which_everybody_has_only_his_own_is_fine(root: Path) -> None:
    (root / "log").chmod(0o1777)
    look(root)


def test_the_clients_own_configuration_is_refused_as_well(root: Path) -> None:
    path = root / "config/rnx-config.yml"
    path.write_text('version: "3.0"\nnodes: {default: {address: "unix:/run/x"}}\n')
    path.chmod(0o644)
    mended(lambda: load_client_config(str(path), {}), path)
