"""The page of the benchmarks, its plots and its JSON: whole, the same for the same findings, and nothing lost."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench import page
from tests.bench.machine import Machine
from tests.bench.page import Entry
from tests.bench.plot import svg, ticks
from tests.bench.report import (
    Bar,
    Bars,
    BenchResult,
    NotRun,
    Plot,
    Series,
    Table,
    at_least,
    at_most,
    figure,
    ratio_lines,
    timing_bars,
)
from tests.bench.rounds import Timing

MACHINE = Machine("2026-11-29", False, (("cores", "2"), ("cgroups", "hybrid")), (("runc", "runc version 1.1.5"),))
LINES = Plot(
    "scale-start",
    "Start & resync",
    "manifests",
    "s",
    (Series.fitted("start <cold>", ((100, 0.1), (10_000, 5.0))), Series("resync", ((100, 0.01), (10_000, 0.02)))),
    log_x=True,
    log_y=True,
)
BARS = Bars("launch-true", "Launch", "ms", (Bar("joblet", 3, 2.9, 3.3, ours=True), Bar("runc", 30, 30, 30)))
RESULT = BenchResult(
    "launch",
    "Launching",
    "From request to recorded exit.",
    ("ratio to runc: 0.10",),
    (Table("Times", ("", "median"), (("a | b", "3\nms"),)),),
    (LINES, BARS),
    (at_most("beside runc", 0.2, 0.1, "of its time"), at_least("jobs", 100, 80, "a second")),
    (NotRun("crun", "error: unknown cgroup mode"),),
)
ENTRIES = [Entry("launch", 12.4, RESULT), Entry("scale", 3.0, None, "OSError: no room")]


def test_the_page_says_everything_that_was_found() -> None:
    text = page.markdown(MACHINE, ENTRIES)
    for expected in (
        "Measured on 2026-11-29.",
        "- cgroups: hybrid",
        "- runc: runc version 1.1.5",
        "| beside runc | at most 0.2 of its time | 0.10 of its time | met, 50% below |",
        "| jobs | at least 100 a second | 80.00 a second | **missed**, 20% below |",
        "| crun | launch | error: unknown cgroup mode |",
        "- ratio to runc: 0.10",
        "| a \\| b | 3 ms |",
        "![Launch](benchmarks/launch-true.svg)",
        "Failed: OSError: no room",
        "| **all** | **15 s** |",
    ):
        assert expected in text


def test_the_page_of_a_busy_machine_says_so() -> None:
    assert page.BUSY not in page.markdown(MACHINE, ENTRIES)
    assert page.BUSY in page.markdown(replace(MACHINE, busy=True), ENTRIES)


def test_the_log_kept_by_hand_becomes_a_section_with_links_from_where_it_stands() -> None:
    log = "# Optimisation log\n\n## A spare\n\nSee [0032](../decisions/0032.md), issue #7.\n"
    text = page.markdown(MACHINE, [], log)
    assert text.endswith("## Optimisation log\n\n### A spare\n\nSee [0032](decisions/0032.md), issue #7.\n")


def test_writing_replaces_the_plots_of_before_and_keeps_the_log(tmp_path: Path) -> None:
    plots = tmp_path / "benchmarks"
    plots.mkdir()
    (plots / "gone.svg").write_text("old")
    (plots / "OPTIMISATION.md").write_text("# Tried\n")
    page.write(tmp_path, MACHINE, ENTRIES)
    assert sorted(path.name for path in plots.iterdir()) == [
        "OPTIMISATION.md",
        "launch-true.svg",
        "results.json",
        "scale-start.svg",
    ]
    assert (tmp_path / "BENCHMARKS.md").read_text().endswith("## Tried\n")


def test_the_json_has_figures_where_the_page_has_words() -> None:
    content = json.loads(page.as_json(MACHINE, ENTRIES))
    assert content["facts"] == {"cores": "2", "cgroups": "hybrid"}
    launch, scale = content["benchmarks"]
    assert launch["result"]["plots"][0]["series"][0]["points"] == [[100, 0.1], [10_000, 5.0]]
    assert [budget["met"] for budget in launch["result"]["budgets"]] == [True, False]
    assert scale == {"name": "scale", "seconds": 3.0, "result": None, "error": "OSError: no room"}


@pytest.mark.parametrize("plot", [LINES, BARS])
def test_a_plot_is_wellformed_and_the_same_each_time(plot: Plot | Bars) -> None:
    text = svg(plot)
    assert text == svg(plot)
    root = ElementTree.fromstring(text)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for element in root.iter():
        for name, most in (("x", width), ("cx", width), ("y", height), ("cy", height)):
            assert 0 <= float(element.get(name, 0)) <= most, (element.tag, element.attrib)
    assert "prefers-color-scheme: dark" in text


def test_the_legend_names_the_growth() -> None:
    texts = [element.text for element in ElementTree.fromstring(svg(LINES)).iter() if element.tag.endswith("text")]
    assert any(re.fullmatch(r"start <cold>   grows as x\^0\.85, at the end x\^\d\.\d\d", text or "") for text in texts)
    assert "resync" in texts


def test_a_plot_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        svg(Plot("empty", "Empty", "x", "y", (Series("none", ()),)))


@pytest.mark.parametrize(
    ("low", "high", "log", "expected"),
    [
        (0, 9, False, [0, 2, 4, 6, 8, 10]),
        (3, 0.9, False, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0, 0, False, [0, 1]),
        (100, 50_000, True, [100, 1000, 10_000, 100_000]),
        (0.02, 0.5, True, [0.01, 0.1, 1]),
    ],
)
def test_axes_are_marked_at_round_numbers_around_the_data(
    low: float, high: float, log: bool, expected: list[float]
) -> None:
    assert ticks(low, high, log=log) == pytest.approx(expected)


def test_ratios_say_our_time_in_terms_of_theirs() -> None:
    timings = {"joblet": Timing(3, 2, 4), "bubblewrap": Timing(4, 3, 5)}
    assert ratio_lines("joblet", timings)[1] == "ratio to bubblewrap: 0.75   (bubblewrap: 4.00 ms (3.00 to 5.00))"
    assert [bar.ours for bar in timing_bars("x", "x", "joblet", timings).bars] == [True, False]


@pytest.mark.parametrize(
    ("value", "expected"), [(0, "0"), (12345.6, "12,346"), (99.994, "99.99"), (0.714, "0.71"), (0.0123, "0.0123")]
)
def test_figures_have_no_powers_of_ten(value: float, expected: str) -> None:
    assert figure(value) == expected
