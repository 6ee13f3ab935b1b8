"""Plots as SVG, drawn by ourselves: the same data gives the same bytes, and a page's dark theme is followed.

A library would be heavier than all that is measured here, and writes dates and random ids into its files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from xml.sax.saxutils import escape

from tests.bench.report import Bars, Plot, Series, figure

WIDTH = 720
LEFT, RIGHT, TOP, BOTTOM = 78, 40, 44, 52
LEGEND_ROW = 18
PLOT_HEIGHT = 280
BAR_ROW = 26
BAR_NAMES = 240
BAR_FIGURES = 96
STYLE = """
  .ground { fill: #ffffff; } .grid { stroke: #d8dee4; } .axis { stroke: #8c959f; } text { fill: #1f2328; }
  .quiet { fill: #59636e; } .theirs { fill: #afb8c1; } .ours { fill: #0969da; } .spread { stroke: #1f2328; }
  .s0 { stroke: #0969da; fill: #0969da; } .s1 { stroke: #bc4c00; fill: #bc4c00; } .s2 { stroke: #1a7f37; fill: #1a7f37; }
  .s3 { stroke: #8250df; fill: #8250df; } .s4 { stroke: #bf3989; fill: #bf3989; } .s5 { stroke: #9a6700; fill: #9a6700; }
  path.line { fill: none; stroke-width: 2; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; } .grid { stroke: #262c36; } .axis { stroke: #656c76; } text { fill: #e6edf3; }
    .quiet { fill: #9198a1; } .theirs { fill: #565e68; } .ours { fill: #4493f8; } .spread { stroke: #e6edf3; }
    .s0 { stroke: #4493f8; fill: #4493f8; } .s1 { stroke: #db6d28; fill: #db6d28; } .s2 { stroke: #3fb950; fill: #3fb950; }
    .s3 { stroke: #ab7df8; fill: #ab7df8; } .s4 { stroke: #db61a2; fill: #db61a2; } .s5 { stroke: #d29922; fill: #d29922; }
    path.line { fill: none; }
  }
"""
COLOURS = 6


def svg(plot: Plot | Bars) -> str:
    return _bars(plot) if isinstance(plot, Bars) else _lines(plot)


def ticks(low: float, high: float, *, log: bool) -> list[float]:
    """Where an axis is marked, in and around that range: powers of ten, or some five round steps from zero."""
    if log:
        return [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    rough = (high or 1.0) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    return [number * step for number in range(math.ceil(high / step) + 1)] if high else [0.0, 1.0]


def _scale(marks: Sequence[float], begin: float, end: float, *, log: bool) -> Callable[[float], float]:
    """From a value to its place on the picture; the outermost marks are at begin and end."""
    at: Callable[[float], float] = math.log10 if log else float
    low, high = at(marks[0]), at(marks[-1])
    if high == low:
        high = low + 1

    def place(value: float) -> float:
        return begin + (at(value) - low) / (high - low) * (end - begin)

    return place


def _lines(plot: Plot) -> str:
    points = [point for series in plot.series for point in series.points]
    if not points:
        raise ValueError(f"{plot.name}: nothing to draw")
    top = TOP + LEGEND_ROW * len(plot.series)
    height = top + PLOT_HEIGHT + BOTTOM
    floor = top + PLOT_HEIGHT
    x_marks, y_marks = (
        ticks(min(values), max(values), log=log)
        for values, log in (([x for x, _ in points], plot.log_x), ([y for _, y in points], plot.log_y))
    )
    x_at = _scale(x_marks, LEFT, WIDTH - RIGHT, log=plot.log_x)
    y_at = _scale(y_marks, floor, top, log=plot.log_y)
    parts = []
    for mark in y_marks:
        parts.append(f'<path class="grid" d="M{LEFT} {y_at(mark):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(_text(LEFT - 8, y_at(mark) + 4, _mark(mark), "end", "quiet"))
    for mark in x_marks:
        parts.append(f'<path class="grid" d="M{x_at(mark):.1f} {top}V{floor}"/>')
        parts.append(_text(x_at(mark), floor + 18, _mark(mark), "middle", "quiet"))
    parts.append(f'<path class="axis" d="M{LEFT} {top}V{floor}H{WIDTH - RIGHT}" fill="none"/>')
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, floor + 40, plot.x_label, "middle", "quiet"))
    parts.append(_text(16, top + PLOT_HEIGHT / 2, plot.y_label, "middle", "quiet", turned=True))
    for number, series in enumerate(plot.series):
        parts += _line(series, number, x_at, y_at)
        parts += _legend(series, number)
    return _picture(height, plot.title, parts)


def _line(series: Series, number: int, x_at: Callable[[float], float], y_at: Callable[[float], float]) -> list[str]:
    places = [(x_at(x), y_at(y)) for x, y in sorted(series.points)]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    return [f'<path class="line s{number % COLOURS}" d="M{path}"/>', *(_marker(x, y, number) for x, y in places)]


def _marker(x: float, y: float, number: int) -> str:
    """Shapes differ as well as colours, for whoever cannot tell those apart."""
    colour = f's{number % COLOURS}"'
    match number % 3:
        case 0:
            return f'<circle class="{colour} cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
        case 1:
            return f'<rect class="{colour} x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>'
    return f'<path class="{colour} d="M{x:.1f} {y - 5:.1f}l5 9h-10z"/>'


def _legend(series: Series, number: int) -> list[str]:
    y = TOP + LEGEND_ROW * number
    growth = "" if series.exponent is None else f"   grows as x^{round(series.exponent, 2) + 0.0:.2f}"
    growth += "" if series.at_the_end is None else f", at the end x^{round(series.at_the_end, 2) + 0.0:.2f}"
    return [_marker(LEFT + 6, y - 4, number), _text(LEFT + 18, y, series.name + growth)]


def _bars(plot: Bars) -> str:
    if not plot.bars:
        raise ValueError(f"{plot.name}: nothing to draw")
    height = TOP + BAR_ROW * len(plot.bars) + BOTTOM
    floor = height - BOTTOM
    marks = ticks(0, max(bar.high for bar in plot.bars), log=False)
    x_at = _scale(marks, BAR_NAMES, WIDTH - BAR_FIGURES, log=False)
    parts = []
    for mark in marks:
        parts.append(f'<path class="grid" d="M{x_at(mark):.1f} {TOP}V{floor}"/>')
        parts.append(_text(x_at(mark), floor + 18, _mark(mark), "middle", "quiet"))
    parts.append(_text((BAR_NAMES + WIDTH - BAR_FIGURES) / 2, floor + 40, plot.unit, "middle", "quiet"))
    for number, bar in enumerate(plot.bars):
        middle = TOP + BAR_ROW * number + BAR_ROW / 2
        width = x_at(bar.value) - BAR_NAMES
        kind = "ours" if bar.ours else "theirs"
        parts.append(_text(BAR_NAMES - 8, middle + 4, bar.name, "end"))
        parts.append(f'<rect class="{kind}" x="{BAR_NAMES}" y="{middle - 8:.1f}" width="{width:.1f}" height="16"/>')
        if bar.high > bar.low:
            parts.append(f'<path class="spread" d="M{x_at(bar.low):.1f} {middle:.1f}H{x_at(bar.high):.1f}"/>')
        parts.append(_text(max(x_at(bar.value), x_at(bar.high)) + 8, middle + 4, f"{figure(bar.value)} {plot.unit}"))
    return _picture(height, plot.title, parts)


def _mark(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "", *, turned: bool = False) -> str:
    turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}{turn}>{escape(text)}</text>'


def _picture(height: float, title: str, parts: Sequence[str]) -> str:
    font = "12px system-ui, sans-serif"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        f' role="img" style="font: {font}">'
    )
    return "\n".join(
        [
            head,
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            f'<rect class="ground" width="{WIDTH}" height="{height}"/>',
            f'<text x="16" y="22" style="font-weight: 600">{escape(title)}</text>',
            *parts,
            "</svg>\n",
        ]
    )
