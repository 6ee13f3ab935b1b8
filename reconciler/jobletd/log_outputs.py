"""Where lines of the daemon's log go: a stream or a file, the journal with their fields; audit lines to a file of theirs too."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import TextIO

from joblet.errors import JobletError
from jobletd.journal import Journal, leads_to_journal

FILE_MODE = 0o640
AUDIT = "audit"


class LogFile:
    """A log that is a file, always the one at its path: whoever rotates logs moves it away, and the next line begins a new one.

    A line that it does not take (a full disk) goes to standard error: a log never ends a daemon.
    """

    def __init__(self, path: str, key: str = "logging.output") -> None:
        """key: of the configuration that names it. Raises JobletError."""
        self._path = path
        self._lock = threading.Lock()
        try:
            self._fd: int | None = self._open()
        except OSError as error:
            todo = f"make its directory, or change {key}"
            raise JobletError(f"cannot be opened: {error.strerror}", where=f"{key}: {path}", todo=todo) from error
        self._identity = _identity(os.fstat(self._fd))

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._path, flags, FILE_MODE)

    def write(self, text: str) -> int:
        with self._lock:
            try:
                if self._fd is not None:
                    self._follow()
                written = self._fd is not None and os.write(self._fd, text.encode(errors="backslashreplace"))
            except OSError:
                written = False
        if not written:
            sys.stderr.write(text)
        return len(text)

    def _follow(self) -> None:
        """Leave a file that was moved away; as long as there can be no new one, that is still the log."""
        with suppress(FileNotFoundError):
            if _identity(os.stat(self._path, follow_symlinks=False)) == self._identity:
                return
        try:
            fd = self._open()
        except OSError:
            return
        if self._fd is not None:
            os.close(self._fd)
        self._fd, self._identity = fd, _identity(os.fstat(fd))

    def flush(self) -> None:
        """Each line was written when it was."""

    def isatty(self) -> bool:
        return False

    def close(self) -> None:
        """Who still holds it writes to standard error."""
        with self._lock:
            if self._fd is not None:
                os.close(self._fd)
            self._fd = None


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


Stream = TextIO | LogFile


class Outputs:
    """All that a line goes to. Lines of libraries come from any thread."""

    def __init__(self, stream: Stream, audit: LogFile | None = None, journal: Journal | None = None) -> None:
        """journal: takes the lines in place of a stream that leads there, and beside any other."""
        self.stream = stream
        self.audit = audit
        self.journal = journal
        self._in_its_place = journal is not None and not isinstance(stream, LogFile)

    def write(self, logger: str, line: str, message: str, level: str, fields: Mapping[str, object]) -> None:
        """line: as it stands in a file. message: the same, less what the journal has anyway. fields: its values by name."""
        told = self.journal is not None and self.journal.send(message, level, {"logger": logger, **fields})
        if not (told and self._in_its_place):
            self.stream.write(line + "\n")
            self.stream.flush()
        if logger == AUDIT and self.audit is not None:
            self.audit.write(line + "\n")

    def close(self) -> None:
        """What was opened for us."""
        for one in (self.stream, self.audit, self.journal):
            if isinstance(one, LogFile | Journal):
                one.close()


def open_outputs(output: str, audit: str | None, journal_stream: str = "") -> Outputs:
    """output, audit: of the configuration's section logging. journal_stream: JOURNAL_STREAM. Raises JobletError."""
    stream: Stream = {"stdout": sys.stdout, "stderr": sys.stderr}.get(output) or LogFile(output)
    leads = leads_to_journal(sys.stderr if isinstance(stream, LogFile) else stream, journal_stream)
    try:
        audit_file = None if audit is None else LogFile(audit, "logging.audit")
    except JobletError:
        if isinstance(stream, LogFile):
            stream.close()
        raise
    return Outputs(stream, audit_file, Journal() if leads else None)
