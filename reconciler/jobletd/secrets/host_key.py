"""The key of the host: from systemd's credentials, else from a file that only root can read, made when it is first needed."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Mapping

from joblet.atomicfile import write_atomic
from joblet.config.private_file import read_private
from joblet.errors import JobletError
from jobletd.secrets.envelope import KEY_BYTES, SealingKey
from jobletd.secrets.errors import SecretKeyError

CREDENTIAL = "joblet-secret-key"


class HostKey:
    """Read at each need, so that a key that was put back is seen. path: the file, where there is no credential."""

    def __init__(self, path: str, env: Mapping[str, str], *, anything_sealed: Callable[[], bool]) -> None:
        """anything_sealed: whether secrets are in the store; then a key that is gone is not replaced by a new one."""
        self._path = path
        self._credentials = env.get("CREDENTIALS_DIRECTORY", "")
        self._anything_sealed = anything_sealed

    def get(self) -> SealingKey:
        """The key. Raises SecretKeyError, OSError."""
        credential = os.path.join(self._credentials, CREDENTIAL) if self._credentials else ""
        if credential and os.path.exists(credential):
            return SealingKey.from_material(_checked(_credential(credential), credential), where=credential)
        if not os.path.lexists(self._path):
            self._make()
        try:
            text = read_private(self._path)
        except JobletError as error:
            raise SecretKeyError(error.what, where=error.where, todo=error.todo) from error
        return SealingKey.from_material(_checked(text.strip().encode(), self._path), where=self._path)

    def _make(self) -> None:
        if self._anything_sealed():
            raise SecretKeyError(
                "the key that the secrets are sealed under is gone",
                where=self._path,
                todo="put it back; or delete all secrets (rnx get secrets, rnx secret remove) and apply them anew",
            )
        write_atomic(self._path, f"{secrets.token_hex(KEY_BYTES)}\n".encode())


def _credential(path: str) -> bytes:
    """systemd has made it readable for the service alone; its content may be anything."""
    with open(path, "rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o007:
            raise SecretKeyError("can be read by everybody", where=path, todo=f"chmod 400 {path}")
        return file.read(4096).removesuffix(b"\n")


def _checked(material: bytes, where: str) -> bytes:
    if len(material) < KEY_BYTES:
        raise SecretKeyError(
            f"holds {len(material)} bytes, a key has at least {KEY_BYTES}",
            where=where,
            todo="put the right one back",
        )
    return material
