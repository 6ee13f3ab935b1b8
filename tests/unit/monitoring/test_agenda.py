"""When each of those that run is looked at."""

from __future__ import annotations

from itertools import pairwise

from jobletd.model import AttemptId
from jobletd.monitoring.agenda import TURN_SECONDS, Agenda, Turns

NOW = 1000.0


def test_many_that_came_at_once_are_looked_at_evenly_round_after_round() -> None:
    turns = Turns()
    due = [turns.next(NOW, 500) for _ in range(500)]
    due += [turns.next(one, 500) for one in due]
    assert {round(later - earlier, 6) for earlier, later in pairwise(due)} == {TURN_SECONDS}
    assert due[0] == NOW + TURN_SECONDS


def test_a_few_do_not_wait_for_each_other() -> None:
    turns = Turns()
    for _ in range(1000):
        assert turns.next(NOW, 3) <= NOW + 3 * TURN_SECONDS


def test_the_end_of_many_keeps_nobody_waiting() -> None:
    turns = Turns()
    for _ in range(500):
        turns.next(NOW, 500)
    assert turns.next(NOW, 2) <= NOW + 2 * TURN_SECONDS


def test_who_is_looked_at_each_second_stays_at_it_however_late_the_look_is() -> None:
    agenda = Agenda()
    agenda.later(AttemptId("a"), NOW, 1.0, 1)
    seen = []
    for late in (0.001, 0.3, 0.04, 0.2):
        assert agenda.next is not None
        seen.append(agenda.next)
        assert agenda.take(agenda.next + late, 20) == ["a"]
        agenda.later(AttemptId("a"), seen[-1] + late, 1.0, 1)
    assert seen == [NOW + number for number in range(1, 5)]
