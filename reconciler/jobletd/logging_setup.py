"""The daemon's log: structlog, as text for people or JSON for programs, one line an event.

A line carries the job, run, attempt, source and peer that it is about: those who log name them, or whoever called them has bound
them (``structlog.contextvars``) for all that is logged meanwhile.

Tracebacks are Python's plain ones: the richer kind prints local variables, and with them keys and jobs' environments.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from jobletd.arrays.index_names import as_written
from jobletd.log_outputs import Outputs, open_outputs
from jobletd.recent_log import remember

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_HEAD = ("timestamp", "level", "event", "peer")
_OURS_ALONE = ("exception", "stack")  # tracebacks have lines of their own
_ATTEMPT = re.compile(r"(.+)-([a-z0-9]+)-[0-9]+")
ABOUT = ("job", "run", "attempt", "source", "peer")
_in_use: list[Outputs] = []


@dataclass(frozen=True, slots=True)
class Settings:
    """How it was set up last."""

    level: str
    json_lines: bool
    outputs: Outputs


_settings: dict[str, Settings] = {}


def open_log(output: str, audit: str | None = None, journal_stream: str = "") -> Outputs:
    """What the section ``logging`` of the configuration names. Raises JobletError."""
    return open_outputs(output, audit, journal_stream)


class Lines:
    """The end of structlog's chain: one for each logger, by its name."""

    def __init__(self, name: str, outputs: Outputs) -> None:
        self._name = name
        self._outputs = outputs

    def msg(self, **line: Any) -> None:
        self._outputs.write(self._name, **line)

    debug = info = warning = error = critical = exception = msg


class Libraries(logging.Handler):
    """The same for what libraries log through the standard module."""

    def __init__(self, outputs: Outputs, form: Callable[[str, str], str]) -> None:
        super().__init__()
        self._outputs = outputs
        self._form = form

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        message = self._form(line, line.partition(" ")[0])
        self._outputs.write(record.name, line, message, record.levelname.lower(), {"event": record.getMessage()})


def set_up_logging(*, level: str, json_lines: bool, stream: Outputs | None = None) -> None:
    """At the start, and again when the configuration changes. level: a name of the standard module, such as INFO.
    stream: from ``open_log``; ours from now on."""
    outputs = stream or Outputs(sys.stderr)
    _settings["in use"] = Settings(level, json_lines, outputs)
    number = logging.getLevelNamesMapping()[level]
    shared: list[Processor] = [
        about,
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
            colors=outputs.stream.isatty(),
            pad_event_to=0,
            sort_keys=False,
            exception_formatter=structlog.dev.plain_traceback,
        )
    )

    def undated(line: str, date: str) -> str:
        """The journal has dates of its own; JSON stays JSON."""
        return line if json_lines else line.removeprefix(f"{date} ")

    def split(logger: Any, method: str, event: EventDict) -> tuple[tuple[()], dict[str, Any]]:
        """The line, and what it is made of."""
        fields = {key: value for key, value in event.items() if key not in ("timestamp", "level", "exc_info")}
        level, date = event["level"], event["timestamp"]
        line = str(renderer(logger, method, event))
        return (), {"line": line, "message": undated(line, date), "level": level, "fields": fields}

    structlog.configure(
        processors=[*shared, split],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *names: Lines(names[0] if names else "", outputs),
        cache_logger_on_first_use=False,
    )
    # Libraries log through the standard module: their warnings belong here too, in the same form.
    handler = Libraries(outputs, undated)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=max(logging.WARNING, number), handlers=[handler], force=True)
    _forget_all_but(outputs)


def change_level(level: str) -> None:
    """Of the log as it is: the same form, the same outputs. Until ``set_up_logging`` is called again."""
    settings = _settings["in use"]
    set_up_logging(level=level, json_lines=settings.json_lines, stream=settings.outputs)


def level_in_use() -> str:
    return _settings["in use"].level


def _forget_all_but(outputs: Outputs) -> None:
    """Close what is no longer the log."""
    for old in [old for old in _in_use if old is not outputs]:
        _in_use.remove(old)
        old.close()
    if outputs not in _in_use:
        _in_use.append(outputs)


def about(_: object, __: str, event: EventDict) -> EventDict:
    """What the line is about, after its own words: as bound by whoever called; an attempt also names its run and job. An index
    of an array is named as people write it."""
    bound = structlog.contextvars.get_contextvars()
    for key in ABOUT:
        if key in bound:
            event.setdefault(key, bound[key])
    if match := _ATTEMPT.fullmatch(str(event.get("attempt", ""))):
        event.setdefault("job", match[1])
        event.setdefault("run", match[2])
    if "job" in event:
        event["job"] = as_written(str(event["job"]))
    return event


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
