"""That the property of convergence can fail: with a fault planted in who owns what, a walk over edits has to find it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from jobletd import desired as desired_state
from jobletd.model import JobName, Source
from jobletd.sources import declarations, following, ownership
from tests.unit.reconciler.test_convergence import Convergence

# Seeds that do not change, no database of earlier failures, and no search for a smaller one: it is enough that it is found.
SEARCH = settings(
    max_examples=60,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
    print_blob=False,
    report_multiple_bugs=False,
)
Patch = Callable[[pytest.MonkeyPatch], None]
Walk = Callable[[Convergence], None]


def owners_are_not_asked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(desired_state, "check_owner", lambda view, source: None)


def what_belongs_to_others_is_taken(patch: pytest.MonkeyPatch) -> None:
    """Each look takes over, so that two sources take a job from each other for ever."""
    decide = ownership.decide_claimed

    def greedy(*args: Any, **options: Any) -> ownership.Decision:
        return decide(*args, **{**options, "take_over": True})

    for module in (ownership, declarations):
        patch.setattr(module, "decide_claimed", greedy)


def what_is_not_declared_any_more_stays(patch: pytest.MonkeyPatch) -> None:
    async def nothing(self: following.Follower, deletes: Iterable[tuple[JobName, Source]]) -> bool:
        return True

    patch.setattr(following.Follower, "delete", nothing)


def a_job_that_moved_to_another_file_is_given_to_nobody(patch: pytest.MonkeyPatch) -> None:
    async def nothing(self: following.Follower, transfers: Iterable[tuple[JobName, Source, Source]]) -> None:
        for _ in transfers:
            return

    patch.setattr(following.Follower, "hand_over", nothing)


def a_client_comes_second(walk: Convergence) -> None:
    walk.commit({"a.yml": {"x": 1}, "b.yml": {}})
    walk.rest()
    walk.apply("x", 2, take_over=False)
    walk.rest()


def two_declare_it(walk: Convergence) -> None:
    walk.drop("a.yml", {"x": 1})
    walk.rest()
    walk.commit({"a.yml": {"x": 2}, "b.yml": {}})
    walk.rest()


def it_is_taken_out(walk: Convergence) -> None:
    walk.drop("a.yml", {"x": 1, "y": 1})
    walk.rest()
    walk.drop("a.yml", {"y": 1})
    walk.rest()


def it_moves(walk: Convergence) -> None:
    walk.drop("a.yml", {"x": 1, "y": 1})
    walk.rest()
    walk.drop("a.yml", {"y": 1})
    walk.drop("b.yml", {"x": 1})
    walk.rest()


@contextmanager
def walking() -> Iterator[Convergence]:
    machine = Convergence()
    try:
        machine.boot()
        yield machine
    finally:
        machine.teardown()


@pytest.mark.parametrize(
    ("plant", "walk"),
    [
        (owners_are_not_asked, a_client_comes_second),
        (what_belongs_to_others_is_taken, two_declare_it),
        (what_is_not_declared_any_more_stays, it_is_taken_out),
        (a_job_that_moved_to_another_file_is_given_to_nobody, it_moves),
    ],
)
def test_a_fault_in_who_owns_what_is_found_by_a_walk_that_goes_well_without_it(
    plant: Patch, walk: Walk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with walking() as machine:
        walk(machine)
    plant(monkeypatch)
    with pytest.raises(AssertionError), walking() as machine:
        walk(machine)


@pytest.mark.parametrize("plant", [what_belongs_to_others_is_taken, what_is_not_declared_any_more_stays])
def test_a_fault_is_found_by_walks_that_nobody_has_written(plant: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises((AssertionError, BaseExceptionGroup)):
        run_state_machine_as_test(Convergence, settings=SEARCH)


def test_a_job_that_two_files_let_go_between_two_looks_goes() -> None:
    """It was given to the second one, whose claim was of an earlier look, and went on until another file changed."""
    with walking() as machine:
        machine.drop("b.yml", {"x": 1})
        machine.rest()
        machine.drop("a.yml", {"x": 3, "w": 2})
        machine.rest()
        machine.drop("b.yml", {"y": 1})
        machine.drop("a.yml", {"w": 3})
        machine.rest()
