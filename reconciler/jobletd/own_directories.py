"""The daemon's own directories: one daemon has them at a time, and begins with what it needs in them."""

from __future__ import annotations

import os

from joblet.atomicfile import remove_unfinished
from joblet.config.server import ServerConfig
from jobletd.backup.restoring import remove_unpacked
from jobletd.directory_lock import lock_path, take_lock
from jobletd.errors import ServeError
from jobletd.tls_front import PEER_NAME_LENGTH

SOCKET_PATH_LENGTH = 107  # sockaddr_un.sun_path, less its final NUL


def lock_directories(config: ServerConfig) -> int:
    """One daemon a root directory: before anything in it is touched. Returns what holds the lock. Raises ServeError."""
    directory = config.run.directory
    if len(f"{directory}/peers/{'x' * PEER_NAME_LENGTH}") > SOCKET_PATH_LENGTH:
        what = f"is too long for the sockets in it, which may have {SOCKET_PATH_LENGTH} characters"
        raise ServeError(what, where=directory, todo="set run.directory to a shorter path")
    os.makedirs(directory, 0o700, exist_ok=True)
    os.chmod(directory, 0o700)  # who can enter it is root to the API
    try:
        return take_lock(directory)
    except BlockingIOError:
        where = lock_path(directory)
        raise ServeError("another daemon runs on these directories", where=where, todo="stop it first") from None


def make_directories(config: ServerConfig) -> None:
    """All that are needed, without what a daemon that was killed has left."""
    for path, mode in (
        (config.state.directory, 0o711),
        (config.logs.directory, 0o750),
        (f"{config.run.directory}/peers", 0o700),
    ):
        os.makedirs(path, mode, exist_ok=True)
    for directory in (config.state.directory, config.run.directory):
        remove_unfinished(directory)  # of a daemon that was killed, as is this:
    remove_unpacked(config.state.directory)
    for name in os.listdir(f"{config.run.directory}/peers"):
        os.unlink(f"{config.run.directory}/peers/{name}")
