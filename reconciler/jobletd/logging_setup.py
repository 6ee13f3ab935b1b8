"""The daemon's log: structlog, as text for people or JSON for programs, one line an event, on standard error.

Tracebacks are Python's plain ones: the richer kind prints local variables, and with them keys and jobs' environments.
"""

from __future__ import annotations

import logging
import re
import sys

import structlog
from structlog.typing import EventDict, Processor

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_OURS_ALONE = ("exception", "stack")  # tracebacks have lines of their own


def set_up_logging(*, level: str, json_lines: bool) -> None:
    """Configure once, at the start. level: a name of the standard module, such as INFO."""
    number = logging.getLevelNamesMapping()[level]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        *([structlog.processors.format_exc_info] if json_lines else []),
        one_line,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if json_lines
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            pad_event_to=0,
            sort_keys=False,
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Libraries log through the standard module: their warnings belong here too, in the same form.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=max(logging.WARNING, number), handlers=[handler], force=True)


def one_line(_: object, __: str, event: EventDict) -> EventDict:
    """Control characters are shown as escapes, so that nobody forges a line of the log with a name of theirs."""
    for key, value in event.items():
        if isinstance(value, str) and key not in _OURS_ALONE:
            event[key] = _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), value)
    return event
