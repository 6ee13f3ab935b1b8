"""How the benchmarks are run: what is there, what a peer that cannot be run said, and what comes out of a guest."""

from __future__ import annotations

import importlib
import subprocess

import pytest

from tests.bench.__main__ import BENCHMARKS
from tests.bench.guest import Found
from tests.bench.peers import checked
from tests.bench.rounds import Timing, able, alternate

MOST_SECONDS = 15 * 60


@pytest.mark.parametrize("name", BENCHMARKS)
def test_each_benchmark_is_there(name: str) -> None:
    assert callable(importlib.import_module(f"tests.bench.{name}").run)


def test_all_benchmarks_are_planned_to_fit_into_a_quarter_of_an_hour() -> None:
    assert sum(BENCHMARKS.values()) <= MOST_SECONDS


def test_a_peer_that_cannot_be_run_is_quoted() -> None:
    peers = {
        "good": lambda: checked(["true"]),
        "missing": lambda: checked(["no-such-program"]),
        "refusing": lambda: checked(["sh", "-c", "echo first >&2; echo cgroups v1 not supported >&2; exit 3"]),
        "silent": lambda: checked(["false"]),
    }
    good, refused = able(peers)
    assert list(good) == ["good"]
    assert refused == {
        "missing": "no-such-program is not installed",
        "refusing": "first cgroups v1 not supported (status 3)",
        "silent": "status 1, without a word",
    }


def test_what_a_failing_peer_said_is_only_its_own() -> None:
    checked(["sh", "-c", "echo of the one before >&2"])
    with pytest.raises(subprocess.CalledProcessError) as raised:
        checked(["sh", "-c", "echo own >&2; exit 1"])
    assert raised.value.stderr == b"own\n"


def test_peers_take_turns() -> None:
    turns: list[str] = []
    alternate({name: lambda name=name: turns.append(name) for name in "ab"}, rounds=2, warm_up=1)  # type: ignore[misc]
    assert turns == ["a", "b"] * 3


def test_a_late_run_ends_once_there_is_enough_for_a_spread() -> None:
    calls: list[None] = []
    alternate({"a": lambda: calls.append(None)}, rounds=100, warm_up=0, within_seconds=0)
    assert len(calls) == 5


def test_what_is_found_in_a_guest_comes_out_of_it_among_other_lines() -> None:
    found = Found({"joblet": Timing(1, 2, 3)}, {"crun": "no"}, {"runc": 4.0})
    assert Found.read(f"booting\n{found.line()}\nbye\n") == found
    assert Found.read("booting\n") is None
