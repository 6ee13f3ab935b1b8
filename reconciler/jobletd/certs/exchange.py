"""Carries an exchange of certificates out: backup, files, reload, real calls, the rest; and puts all back if anything fails.

At every point, whatever dies there, daemon and clients go on: with what is written so far old and new understand each other (see
``renewal``), and each file is replaced as a whole.
"""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Callable, Sequence

from joblet.atomicfile import write_atomic
from joblet.config.client import NodeConfig
from joblet.config.errors import ConfigError
from joblet.config.server import ServerConfig
from joblet.crash_points import reached
from joblet.errors import JobletError
from joblet.pki import CertificateError
from jobletd.certs.directory import CertificateDirectory
from jobletd.certs.errors import CertsError
from jobletd.certs.renewal import Exchange, File
from jobletd.certs.verification import call, check_client, check_server, own_client
from jobletd.local_call import is_running, reload_daemon

ADMIN = "rnx-config.yml"
BACKUPS_KEPT = 10


class Exchanger:
    """read: the configuration as it is now. tell: says to people what is done."""

    def __init__(
        self,
        directory: CertificateDirectory,
        read: Callable[[], ServerConfig],
        tell: Callable[[str], None],
        now: datetime.datetime,
    ) -> None:
        self._directory = directory
        self._read = read
        self._tell = tell
        self._now = now

    def carry_out(self, plan: Exchange) -> None:
        """Raises CertsError; everything is as it was then."""
        config = self._read()
        callers = self._callers(config, plan)
        self._tell(f"the old files are in {back_up(self._directory, self._now)}")
        old = [(path, _content(path)) for path, _ in (*plan.first, *plan.then)]
        try:
            write_all(plan.first)
            self._put_into_force(plan, callers)
            reached("certificates.in-force")
            write_all(plan.then)
        except BaseException as error:
            self._put_back(old, config)
            if isinstance(error, JobletError | OSError):
                raise CertsError(f"{error}; the old certificates are back in place") from error
            raise

    def put_into_force(self, changed: File) -> None:
        """The daemon's configuration with other revocation lists. Raises JobletError; the old one is back then."""
        path, data = changed
        old = _content(path) or b""
        write_atomic(path, data)
        try:
            config = self._read()
            check_server(config, self._now)
            if is_running(config.socket_path):
                reload_daemon(config.socket_path)
            else:
                self._tell("the daemon is not running: it counts from its start on")
        except BaseException:
            write_atomic(path, old)
            raise

    def _callers(self, config: ServerConfig, plan: Exchange) -> list[NodeConfig]:
        """Who has to be answered afterwards: a client of before, if it counts, and a renewed one."""
        found = [plan.client] if plan.client else []
        if not plan.overlap:
            return found
        try:
            before = own_client(config, self._directory.file(ADMIN))
            check_client(before, config, self._now, where=before.name)
        except (CertificateError, CertsError, ConfigError) as error:
            self._tell(f"not called as before: {error}")
        else:
            found.append(before)
        return found

    def _put_into_force(self, plan: Exchange, callers: Sequence[NodeConfig]) -> None:
        config = self._read()
        check_server(config, self._now)
        if not is_running(config.socket_path):
            self._tell("the daemon is not running: checked without a call")
            return
        reload_daemon(config.socket_path)
        for node in callers:
            call(node, config, expected=plan.server)
        self._tell("the daemon has taken them, and answers old and new clients")

    def _put_back(self, old: Sequence[tuple[str, bytes | None]], config: ServerConfig) -> None:
        """In the opposite order, so that this too is right at every point. Raises CertsError."""
        for path, content in reversed(old):
            if content is not None:
                write_atomic(path, content)
            elif os.path.exists(path):
                os.unlink(path)
        try:
            if is_running(config.socket_path):
                reload_daemon(config.socket_path)
        except JobletError as error:
            raise CertsError(f"the old files are back, and the daemon does not take them: {error}") from error


def write_all(files: Sequence[File]) -> None:
    """One after the other, each atomically and durably. Raises OSError."""
    for path, data in files:
        write_atomic(path, data)
        reached("certificates.file-written")


def back_up(directory: CertificateDirectory, now: datetime.datetime) -> str:
    """A copy of all files, complete from the moment at which it has its name; the oldest copies go. Raises OSError."""
    parent = directory.file("backup")
    os.makedirs(parent, 0o700, exist_ok=True)
    final = f"{parent}/{now:%Y%m%dT%H%M%S.%fZ}"
    new = f"{final}.new"
    os.mkdir(new, 0o700)
    for entry in os.scandir(directory.path):
        if entry.is_file(follow_symlinks=False):
            write_atomic(f"{new}/{entry.name}", _content(entry.path) or b"")
    os.rename(new, final)
    for name in sorted(os.listdir(parent))[:-BACKUPS_KEPT]:
        shutil.rmtree(f"{parent}/{name}")
    return final


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
