"""What a terminal needs: safe text, colours only where somebody sees them, a line that tells what is waited for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

PHASE_STYLES = {
    "COMPLETED": "green",
    "RUNNING": "cyan",
    "INITIALIZING": "cyan",
    "PENDING": "yellow",
    "SCHEDULED": "yellow",
    "FAILED": "bold red",
    "STOPPED": "magenta",
}
_ANSI = {"green": "32", "cyan": "36", "yellow": "33", "bold red": "1;31", "red": "31", "magenta": "35", "bold": "1"}


def printable(text: str) -> str:
    """Text that cannot steer a terminal: control characters are shown as escapes."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in "\t " else one.encode("unicode_escape").decode("ascii") for one in text
    )


def wants_colour(stream: TextIO) -> bool:
    """Colours only on a terminal, and not if NO_COLOR is set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(text: str, style: str) -> str:
    """Text for standard output, coloured if that is a terminal."""
    code = _ANSI.get(style)
    return f"\x1b[{code}m{text}\x1b[0m" if code and wants_colour(sys.stdout) else text


def _tell_nobody(text: str) -> None:
    """What is waited for interests only somebody who looks."""


@contextmanager
def progress(text: str) -> Iterator[Callable[[str], None]]:
    """Show on standard error what is waited for, if that is a terminal. Yields a function that changes the text."""
    if not sys.stderr.isatty():
        yield _tell_nobody
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status(Text(text)) as status:
        yield lambda text: status.update(Text(printable(text)))


def _count_for_nobody(count: int) -> None:
    """Bytes that interest only somebody who looks."""


@contextmanager
def byte_progress(text: str, total: int, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, if that is a terminal. Yields a function that is told of each further number of bytes."""
    if quiet or not sys.stderr.isatty():
        yield _count_for_nobody
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text, total=total)
        yield lambda count: bar.advance(task, count)
