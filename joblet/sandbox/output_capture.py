"""What the command and all that it started write to their standard output and error: from the pipes into the log."""

from __future__ import annotations

import os

from joblet.sandbox.log_writer import CHUNK_BYTES
from joblet.sandbox.redaction import RedactedStream

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select

    from joblet.sandbox.log_writer import LogWriter
    from joblet.sandbox.redaction import Redaction

DRAIN_BYTES_AT_MOST = 1 << 30


class OutputCapture:
    """Of one attempt."""

    def __init__(self, streams: dict[int, str], log: LogWriter, redaction: Redaction | None) -> None:
        """streams: their names by the descriptors to read from, which do not block. redaction: of what the log must not show."""
        self.streams = streams
        self.log = log
        self._redacted = {fd: RedactedStream(redaction) for fd in streams} if redaction is not None else {}

    def copy(self, poll: select.poll, fd: int) -> bool:
        """One chunk. Returns whether there may be more; at its end the stream is closed and taken out of ``poll``."""
        try:
            data = os.read(fd, CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not data:
            poll.unregister(fd)
            self._finish(fd)
            os.close(fd)
            return False
        if self._redacted:
            data = self._redacted[fd].feed(data)
        self._keep(fd, data)
        return True

    def drain(self, poll: select.poll) -> None:
        """What is left in the pipes. Bounded: with the host's network a descriptor may have been handed to a stranger."""
        for fd in list(self.streams):
            left = DRAIN_BYTES_AT_MOST
            while left > 0 and self.copy(poll, fd):
                left -= CHUNK_BYTES
            if fd in self.streams:
                self._finish(fd)

    def _finish(self, fd: int) -> None:
        """No more is taken from it."""
        if self._redacted:
            self._keep(fd, self._redacted[fd].finish())
        del self.streams[fd]

    def _keep(self, fd: int, data: bytes) -> None:
        if data:
            self.log.write(self.streams[fd], data)
