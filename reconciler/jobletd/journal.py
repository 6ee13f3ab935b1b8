"""journald's native protocol: a line of the log with fields of its own, which ``journalctl JOBLET_JOB=nightly`` finds."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import sys
from collections.abc import Mapping
from typing import TextIO

SOCKET = "/run/systemd/journal/socket"
IDENTIFIER = "joblet"
FIELD_LENGTH = 64
# journald takes a file only if nobody can change it any more.
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_PRIORITY = {"debug": "7", "info": "6", "warning": "4", "error": "3", "critical": "2"}
_NO_NAME = re.compile(r"[^A-Z0-9_]")


class Journal:
    """The way to journald. Never an error: a line that it does not take is told by ``send``."""

    def __init__(self, path: str = SOCKET) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def send(self, message: str, level: str, fields: Mapping[str, object]) -> bool:
        """Whether journald has it."""
        data = datagram(message, level, fields)
        try:
            try:
                self._socket.sendto(data, self._path)
            except OSError as error:
                if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                    raise
                self._send_file(data)  # larger than a datagram may be
        except OSError:
            return False
        return True

    def _send_file(self, data: bytes) -> None:
        fd = os.memfd_create("joblet-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.write(fd, data)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, fd.to_bytes(4, sys.byteorder))
            self._socket.sendmsg([b""], [rights], 0, self._path)
        finally:
            os.close(fd)

    def close(self) -> None:
        self._socket.close()


def leads_to_journal(stream: TextIO, journal_stream: str) -> bool:
    """Whether that stream is the one which systemd connected to the journal. journal_stream: the variable JOURNAL_STREAM."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or no file at all
        return False
    return journal_stream == f"{found.st_dev}:{found.st_ino}"


def datagram(message: str, level: str, fields: Mapping[str, object]) -> bytes:
    """What travels: NAME=VALUE lines, and a length before a value that has lines."""
    known = {"MESSAGE": message, "PRIORITY": _PRIORITY.get(level, "6"), "SYSLOG_IDENTIFIER": IDENTIFIER}
    ours = {field_name(name): str(value) for name, value in fields.items() if value not in (None, "")}
    return b"".join(_field(name, text) for name, text in {**ours, **known}.items())


def field_name(name: str) -> str:
    """JOBLET_JOB for job: a name of its own, as journald takes it."""
    return f"JOBLET_{_NO_NAME.sub('_', name.upper())}"[:FIELD_LENGTH]


def _field(name: str, text: str) -> bytes:
    value = text.encode(errors="backslashreplace")
    if b"\n" not in value:
        return b"%s=%s\n" % (name.encode(), value)
    return b"%s\n%s%s\n" % (name.encode(), len(value).to_bytes(8, "little"), value)
