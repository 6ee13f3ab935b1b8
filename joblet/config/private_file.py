"""Reads files that hold keys, which nobody but their owner may be able to, and certificates, which everybody may."""

from __future__ import annotations

import os
import stat
from shlex import quote

from joblet.config.errors import ConfigError

MAX_BYTES = 1 << 20


def read_private(path: str) -> str:
    """The file's text. Raises ConfigError with the mending command where others can read it, or it is somebody else's."""
    data, status = _read(path)
    _check_owner_alone(path, status)
    return _text(path, data)


def _check_owner_alone(path: str, status: os.stat_result) -> None:
    """Raises ConfigError."""
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigError("holds keys and can be read by others", where=path, todo=f"chmod 600 {quote(path)}")
    if status.st_uid not in (0, os.geteuid()):
        todo = f"chown {os.geteuid()} {quote(path)}"
        raise ConfigError("holds keys and belongs to somebody else", where=path, todo=todo)


def check_private(path: str) -> None:
    """As ``read_private``, of a file that need not be there, whatever is in it. Raises ConfigError with the mending command."""
    if not os.path.lexists(path):
        return
    try:
        status = os.stat(path)
    except OSError as error:
        raise ConfigError(f"cannot be looked at: {error.strerror}", where=path) from error
    _check_owner_alone(path, status)


def check_directory(path: str) -> None:
    """Of one that need not be there: nobody else puts files into it, or exchanges those in it. Raises ConfigError."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"cannot be looked at: {error.strerror}", where=path) from error
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o022 and not mode & stat.S_ISVTX:  # as in /tmp, where everybody has only his own files
        raise ConfigError("can be changed by others", where=path, todo=f"chmod go-w {quote(path)}")
    if status.st_uid not in (0, os.geteuid()):
        todo = f"chown {os.geteuid()} {quote(path)}"
        raise ConfigError("belongs to somebody else, who could exchange what is in it", where=path, todo=todo)


def read_public(path: str) -> str:
    """The text of a file that holds no keys. Raises ConfigError with the mending command where others can change it."""
    data, status = _read(path)
    if stat.S_IMODE(status.st_mode) & 0o022:
        raise ConfigError("can be changed by others", where=path, todo=f"chmod go-w {quote(path)}")
    return _text(path, data)


def _read(path: str) -> tuple[bytes, os.stat_result]:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_BYTES + 1), os.fstat(file.fileno())
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=path) from error


def _text(path: str, data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise ConfigError(f"is larger than {MAX_BYTES} bytes", where=path)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8 at byte {error.start}", where=path) from error
