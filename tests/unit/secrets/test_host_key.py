"""The host's key: made once, safely, never replaced while something depends on it; a credential of systemd comes first."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from jobletd.secrets.errors import SecretKeyError
from jobletd.secrets.host_key import CREDENTIAL, HostKey


def key_at(path: Path, *, sealed: bool = False, credentials: Path | None = None) -> HostKey:
    env = {"CREDENTIALS_DIRECTORY": str(credentials)} if credentials else {}
    return HostKey(str(path), env, anything_sealed=lambda: sealed)


def test_it_is_made_when_it_is_first_needed_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    key = key_at(path).get()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert key_at(path, sealed=True).get() == key
    assert os.listdir(tmp_path) == ["secret.key"]


def test_one_that_others_can_read_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    key_at(path).get()
    path.chmod(0o640)
    with pytest.raises(SecretKeyError) as found:
        key_at(path).get()
    assert found.value.todo == f"chmod 600 {path}"


def test_one_that_is_gone_is_not_replaced_while_something_is_sealed(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    with pytest.raises(SecretKeyError, match="put it back") as found:
        key_at(path, sealed=True).get()
    assert found.value.where == str(path) and not path.exists()


@pytest.mark.parametrize("content", ["", "short", "x" * 31])
def test_one_that_is_too_short_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "secret.key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(SecretKeyError, match="at least 32"):
        key_at(path).get()


def test_a_credential_comes_before_the_file_and_may_be_any_bytes(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    file_key = key_at(tmp_path / "secret.key", credentials=credentials).get()
    (credentials / CREDENTIAL).write_bytes(bytes(range(200, 240)))
    (credentials / CREDENTIAL).chmod(0o400)
    key = key_at(tmp_path / "secret.key", credentials=credentials).get()
    assert key.id != file_key.id and key.where == str(credentials / CREDENTIAL)
    (credentials / CREDENTIAL).chmod(0o444)
    with pytest.raises(SecretKeyError, match="chmod 400"):
        key_at(tmp_path / "secret.key", credentials=credentials).get()
