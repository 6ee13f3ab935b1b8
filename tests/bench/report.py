"""What a benchmark found, as data: tables, plots, budgets, and the peers that could not be run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.bench.growth import exponent, exponent_at_the_end
from tests.bench.rounds import Timing


@dataclass(frozen=True)
class Table:
    """Cells are text as it is to be read, units included; the first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Series:
    """One line of a plot. exponent: how y grows with x, a straight line's slope where both axes are logarithmic.
    at_the_end: of the last two points."""

    name: str
    points: tuple[tuple[float, float], ...]
    exponent: float | None = None

    @property
    def at_the_end(self) -> float | None:
        return None if self.exponent is None else exponent_at_the_end(self.points)

    @classmethod
    def fitted(cls, name: str, points: tuple[tuple[float, float], ...]) -> Series:
        """A line whose growth is named in the legend."""
        return cls(name, points, exponent(points))


@dataclass(frozen=True)
class Plot:
    """Lines over a numeric axis. name: the file's, unique among all plots."""

    name: str
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True)
class Bar:
    """A median, and the range of the middle half; both ends are the value itself where there is no spread."""

    name: str
    value: float
    low: float
    high: float
    ours: bool = False


@dataclass(frozen=True)
class Bars:
    """Peers beside each other. name: the file's, unique among all plots."""

    name: str
    title: str
    unit: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Budget:
    """A line of DESIGN's budget. by: how much is left, or by how much it is missed."""

    what: str
    budget: str
    measured: str
    met: bool
    by: str

    def __str__(self) -> str:
        return f"budget: {self.what}: {self.budget}; measured {self.measured}: {'met' if self.met else 'missed'}, {self.by}"


def at_most(what: str, limit: float, measured: float, unit: str = "") -> Budget:
    return _budget(what, "at most", limit, measured, unit, met=measured <= limit)


def at_least(what: str, limit: float, measured: float, unit: str = "") -> Budget:
    return _budget(what, "at least", limit, measured, unit, met=measured >= limit)


def _budget(what: str, bound: str, limit: float, measured: float, unit: str, *, met: bool) -> Budget:
    unit = f" {unit}" if unit else ""
    share = abs(measured - limit) / limit
    side = "above" if measured > limit else "below"
    return Budget(what, f"{bound} {limit:g}{unit}", f"{figure(measured)}{unit}", met, f"{share:.0%} {side}")


@dataclass(frozen=True)
class NotRun:
    """A peer that could not be run, and why: in the words of the tool itself where it had any."""

    peer: str
    why: str


@dataclass(frozen=True)
class BenchResult:
    """summary: what is to be read first, ratios before times. about: what was measured and how, in a few sentences."""

    name: str
    title: str
    about: str
    summary: tuple[str, ...]
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot | Bars, ...] = ()
    budgets: tuple[Budget, ...] = ()
    not_run: tuple[NotRun, ...] = ()


def figure(value: float) -> str:
    """Three significant digits, and no powers of ten."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3g}"


def ratio_lines(ours: str, timings: Mapping[str, Timing]) -> tuple[str, ...]:
    """Our time, then one line a peer: our median in terms of theirs."""
    lines = [f"{ours}: {timings[ours]}"]
    for name, timing in timings.items():
        if name != ours:
            lines.append(f"ratio to {name}: {timings[ours].median / timing.median:.2f}   ({name}: {timing})")
    return tuple(lines)


def print_ratios(ours: str, timings: Mapping[str, Timing]) -> tuple[str, ...]:
    lines = ratio_lines(ours, timings)
    print("\n".join(lines), flush=True)
    return lines


def timing_table(title: str, ours: str, timings: Mapping[str, Timing]) -> Table:
    """The quickest first."""
    rows = tuple(
        (
            name,
            "" if name == ours else f"{timings[ours].median / timing.median:.2f}",
            f"{timing.median:.2f} ms",
            f"{timing.low:.2f} to {timing.high:.2f}",
        )
        for name, timing in sorted(timings.items(), key=lambda item: item[1].median)
    )
    return Table(title, ("", f"{ours}'s time in terms of it", "median", "middle half, ms"), rows)


def timing_bars(name: str, title: str, ours: str, timings: Mapping[str, Timing]) -> Bars:
    """The quickest first."""
    ordered = sorted(timings.items(), key=lambda item: item[1].median)
    return Bars(name, title, "ms", tuple(Bar(peer, t.median, t.low, t.high, peer == ours) for peer, t in ordered))
