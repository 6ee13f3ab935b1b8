"""The daemon's log: structlog, as text for people or JSON for programs, on standard error."""

from __future__ import annotations

import logging
import sys

import structlog


def set_up_logging(*, level: str, json_lines: bool) -> None:
    """Configure once, at the start; again at a reload."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if json_lines
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0, sort_keys=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if json_lines else _as_is,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Libraries log through the standard module: their warnings belong here too.
    logging.basicConfig(
        level=max(logging.WARNING, logging.getLevelNamesMapping()[level]), stream=sys.stderr, force=True
    )


def _as_is(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """The console renderer shows exceptions itself."""
    return event
