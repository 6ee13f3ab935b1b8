"""The daemon's log: structlog, as text for people or JSON for programs, one line an event, on standard error or in a file.

Tracebacks are Python's plain ones: the richer kind prints local variables, and with them keys and jobs' environments.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from dataclasses import dataclass
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict, Processor

from joblet.errors import JobletError
from jobletd.recent_log import remember

FILE_MODE = 0o640
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_HEAD = ("timestamp", "level", "event", "peer")
_OURS_ALONE = ("exception", "stack")  # tracebacks have lines of their own


class LogFile:
    """A log that is a file. A line that it does not take (a full disk) goes to standard error: a log never ends a daemon."""

    def __init__(self, path: str) -> None:
        """Raises JobletError."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._fd: int | None = os.open(path, flags, FILE_MODE)
        except OSError as error:
            todo = "make its directory, or set logging.output to stderr"
            raise JobletError(
                f"cannot be opened: {error.strerror}", where=f"logging.output: {path}", todo=todo
            ) from error
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        with self._lock:
            try:
                written = self._fd is not None and os.write(self._fd, text.encode(errors="backslashreplace"))
            except OSError:
                written = False
        if not written:
            sys.stderr.write(text)
        return len(text)

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


Stream = TextIO | LogFile
_streams: list[Stream] = []  # the one in use


@dataclass(frozen=True, slots=True)
class Settings:
    """How it was set up last."""

    level: str
    json_lines: bool
    stream: Stream


_in_use: dict[str, Settings] = {}


def open_log(output: str) -> Stream:
    """What ``logging.output`` names. Raises JobletError."""
    return {"stdout": sys.stdout, "stderr": sys.stderr}.get(output) or LogFile(output)


def set_up_logging(*, level: str, json_lines: bool, stream: Stream | None = None) -> None:
    """At the start, and again when the configuration changes. level: a name of the standard module, such as INFO.
    stream: from ``open_log``; ours from now on."""
    stream = stream or sys.stderr
    _in_use["settings"] = Settings(level, json_lines, stream)
    number = logging.getLevelNamesMapping()[level]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        *([structlog.processors.format_exc_info] if json_lines else []),
        one_line,
        remember,
        head_first,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if json_lines
        else structlog.dev.ConsoleRenderer(
            colors=stream.isatty(),
            pad_event_to=0,
            sort_keys=False,
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, stream)),  # it writes and flushes, that's enough
        cache_logger_on_first_use=False,
    )
    # Libraries log through the standard module: their warnings belong here too, in the same form.
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=max(logging.WARNING, number), handlers=[handler], force=True)
    _forget_all_but(stream)


def change_level(level: str) -> None:
    """Of the log as it is: the same form, the same stream. Until ``set_up_logging`` is called again."""
    settings = _in_use["settings"]
    set_up_logging(level=level, json_lines=settings.json_lines, stream=settings.stream)


def level_in_use() -> str:
    return _in_use["settings"].level


def _forget_all_but(stream: Stream) -> None:
    """Close a file that is no longer the log."""
    for old in [old for old in _streams if old is not stream]:
        _streams.remove(old)
        if isinstance(old, LogFile):
            old.close()
    if stream not in _streams:
        _streams.append(stream)


def head_first(_: object, __: str, event: EventDict) -> EventDict:
    """What names the line, and the peer, come before what a client may have chosen: fail2ban's filter looks no further."""
    return {**{key: event[key] for key in _HEAD if key in event}, **event}


def one_line(_: object, __: str, event: EventDict) -> EventDict:
    """Control characters are shown as escapes, so that nobody forges a line of the log with a name of theirs."""
    for key, value in event.items():
        if isinstance(value, str) and key not in _OURS_ALONE:
            event[key] = escaped(value)
    return event


def escaped(text: str) -> str:
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
