"""Reads a configuration file that holds keys: nobody but its owner may be able to."""

from __future__ import annotations

import os
import stat

from joblet.config.errors import ConfigError

MAX_BYTES = 1 << 20


def read_private(path: str) -> str:
    """The file's text. Raises ConfigError with the mending command where others can read it, or it is somebody else's."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=path) from error
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigError("holds keys and can be read by others", where=path, todo=f"chmod 600 {path}")
    if status.st_uid not in (0, os.geteuid()):
        raise ConfigError("holds keys and belongs to somebody else", where=path, todo=f"chown {os.geteuid()} {path}")
    if len(data) > MAX_BYTES:
        raise ConfigError(f"is larger than {MAX_BYTES} bytes", where=path)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"is not UTF-8 at byte {error.start}", where=path) from error
