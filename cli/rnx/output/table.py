"""Tables: by rich on a terminal, plain aligned columns for pipes and scripts, where nothing may be cut off."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rnx.output.terminal import PHASE_STYLES, printable, wants_colour

LEAST_ROOM = 10


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their header. Empty cells show as ``-``."""
    cells = [[printable(cell) or "-" for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_rich(header, cells)
        return
    for row in aligned([list(header), *cells]):
        print(row)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, columns two spaces apart, nothing after the last."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _print_rich(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """The last column holds what is long, a command or a message: it alone is shortened to the terminal's width."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    *fixed, last = (max(map(len, column)) for column in zip(header, *rows, strict=True))
    console = Console(no_color=not wants_colour(sys.stdout))
    room = console.width - sum(fixed) - 2 * len(fixed)
    if room < min(last, LEAST_ROOM):  # the terminal wraps the lines then: an id must stay whole
        print("\n".join(aligned([header, *rows])))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title, width in zip(header[:-1], fixed, strict=True):
        table.add_column(title, no_wrap=True, min_width=width)
    table.add_column(header[-1], no_wrap=True, overflow="ellipsis", width=min(last, room))
    for row in rows:
        table.add_row(*(Text(cell, style=PHASE_STYLES.get(cell, "")) for cell in row))
    console.print(table)
