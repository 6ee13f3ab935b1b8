"""What is to be done about an array, whatever becomes of its indexes and in whatever order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobletd.arrays.progress import (
    OPEN,
    Begin,
    Mark,
    Over,
    Progress,
    Rules,
    StopOpen,
    at_the_end,
    named,
    next_step,
    outcome_text,
)
from jobletd.model import Phase, Reason

ENDS = (Mark.SUCCEEDED, Mark.FAILED, Mark.STOPPED)
# Of the open indexes one, by its place among them: it runs, waits for its next attempt, or ends.
events = st.tuples(st.integers(0, 50), st.sampled_from((Mark.RUNNING, Mark.WAITING, *ENDS)))


def open_indexes(progress: Progress) -> list[int]:
    return [index for index, mark in enumerate(progress.text(), progress.first) if mark in OPEN]


@given(
    count=st.integers(1, 12),
    needed=st.integers(1, 12),
    parallel=st.integers(1, 5),
    fail_fast=st.booleans(),
    story=st.lists(events, max_size=80),
    stopped_after=st.one_of(st.none(), st.integers(0, 40)),
)
def test_an_array_ends_as_its_policy_says_and_begins_no_more_than_it_may(
    count: int,
    needed: int,
    parallel: int,
    fail_fast: bool,
    story: list[tuple[int, Mark]],
    stopped_after: int | None,
) -> None:
    rules = Rules(min(needed, count), parallel, fail_fast)
    progress = Progress(7, Mark.NOT_BEGUN * count)
    begun: list[int] = []
    stop: Reason | None = None
    for number in range(len(story) + 4 * count):
        stop = Reason.STOPPED if number == stopped_after else stop
        step = next_step(progress, rules, stop)
        assert progress.count(*OPEN) <= parallel
        succeeded = progress.count(Mark.SUCCEEDED)
        match step:
            case Over():
                check_end(step, progress, rules, stop)
                break
            case StopOpen(reason):
                assert stop is reason or (stop is None and reason is Reason.NOT_NEEDED)
                for index in open_indexes(progress):
                    progress.put(index, Mark.STOPPED if stop else Mark.SKIPPED)
                continue
            case Begin(indexes):
                assert succeeded < rules.needed and stop is None
                begun += indexes
                for index in indexes:
                    assert progress[index] is Mark.NOT_BEGUN
                    progress.put(index, Mark.WAITING)
        if found := open_indexes(progress):
            place, mark = story[number] if number < len(story) else (0, Mark.SUCCEEDED)
            progress.put(found[place % len(found)], mark)
    else:
        raise AssertionError("it never ends")
    assert begun == sorted(set(begun)), "an index began twice, or out of turn"
    assert all(progress.count(mark) == progress.text().count(mark) for mark in Mark)


def check_end(step: Over, progress: Progress, rules: Rules, stop: Reason | None) -> None:
    assert progress.count(*OPEN) == 0
    succeeded = progress.count(Mark.SUCCEEDED)
    if succeeded >= rules.needed:
        assert (step.phase, step.reason) == (Phase.COMPLETED, Reason.COMPLETED)
    elif stop is not None:
        assert (step.phase, step.reason) == (Phase.STOPPED, stop)
    else:
        assert (step.phase, step.reason) == (Phase.FAILED, Reason.INDEXES_FAILED)
        assert succeeded + progress.count(Mark.NOT_BEGUN, Mark.SKIPPED) < rules.needed or rules.fail_fast
        assert rules.fail_fast or progress.count(Mark.NOT_BEGUN) == 0, "what failed ended the others"
    assert Mark.NOT_BEGUN not in at_the_end(progress.text())


@pytest.mark.parametrize(
    ("marks", "text"),
    [
        ("ssss", "4 of 4 indexes succeeded"),
        ("sffsfx-.", "2 of 8 indexes succeeded, 3 failed (11-12, 14), 1 stopped (15), 2 not run"),
        ("sf" * 12, "12 of 24 indexes succeeded, 12 failed (11, 13, 15, 17, 19, 21, 23, 25, 27, 29 ...)"),
    ],
)
def test_an_outcome_names_what_failed_and_the_first_of_many(marks: str, text: str) -> None:
    assert outcome_text(marks, 10) == text


def test_neighbours_are_named_together() -> None:
    assert named("fff.f.ff", 0, Mark.FAILED) == "0-2, 4, 6-7"
    assert named("....", 0, Mark.FAILED) == ""
