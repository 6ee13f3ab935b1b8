"""The ticks of timetables against an oracle that looks at every minute: years of them, in zones with all kinds of changes."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from joblet.schedules import At, Cron, Every, Timetable, latest_tick, latest_ticks, tick_after
from joblet.schedules.cron import check_cron, comes, six_fields
from tests.unit.schedules import oracle

DAY = 86_400


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def cron(text: str, zone: str, name: str = "job") -> Cron:
    return Cron(six_fields(text, name=name), ZoneInfo(zone))


def ticks_in(timetable: Timetable, begin: int, end: int) -> list[int]:
    return list(takewhile(lambda tick: tick < end, timetable.ticks(begin)))


def shown(ticks: list[int], zone: str) -> list[str]:
    return [datetime.fromtimestamp(tick, ZoneInfo(zone)).isoformat() for tick in ticks]


EXPRESSIONS = (
    "0 30 2 * * *",
    "0 0 3 * * *",
    "0 */20 * * * *",
    "0 15 */2 * * *",
    "0 0 0 * * *",
    "0 5,35 0-3 * * SUN",
    "0 */15 2 * * *",
    "0 59 23 28-31 * *",
    "0 0 12 29 2 *",
    "0 10 1 1,15 * FRI",
    "0 0 4 */5 JAN-JUN *",
)


@pytest.mark.parametrize(
    ("zone", "begin", "days"),
    [
        ("America/New_York", "2027-03-12", 5),
        ("Australia/Lord_Howe", "2026-04-03", 4),  # half an hour
        ("Australia/Lord_Howe", "2026-10-02", 4),
        ("America/Havana", "2026-03-06", 4),  # at midnight: that day begins at one o'clock
        ("America/Havana", "2026-10-30", 4),
        ("Africa/Casablanca", "2027-02-06", 36),  # back for a month
        ("Pacific/Apia", "2011-12-27", 6),  # a whole day was jumped over
    ],
)
def test_the_ticks_in_zones_of_all_kinds_are_those_that_a_look_at_each_minute_finds(
    zone: str, begin: str, days: int
) -> None:
    check_against_the_oracle(EXPRESSIONS, zone, seconds(begin), days)


def test_the_ticks_of_years_are_those_that_a_look_at_each_quarter_of_an_hour_finds() -> None:
    expressions = ("0 30 2 * * *", "0 15 */2 * * *", "0 */15 2 * * *", "0 0 12 29 2 *", "0 45 1 1,15 * FRI")
    check_against_the_oracle(expressions, "Europe/Berlin", seconds("2026-01-01"), 3 * 365, step=900)


def check_against_the_oracle(expressions: tuple[str, ...], zone: str, start: int, days: int, step: int = 60) -> None:
    end = start + days * DAY
    for expression in expressions:
        found = ticks_in(cron(expression, zone), start, end)
        assert found == list(oracle.ticks(expression, zone, start, end, step)), expression


FIELDS = (
    st.sampled_from(["0"]),
    st.sampled_from(["*", "*/7", "0", "30", "59", "0,30", "10-20", "5/25"]),
    st.sampled_from(["*", "*/3", "0", "1", "2", "3", "1-3", "23", "2,14", "0-23/2"]),
    st.sampled_from(["*", "1", "29", "*/3", "*/2", "25-31", "8,9", "28"]),
    st.sampled_from(["*", "3", "MAR,OCT", "4-11", "11"]),
    st.sampled_from(["*", "0", "SUN", "7", "MON-FRI", "6,0", "*/2"]),
)
CHANGES = [
    ("Europe/Berlin", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25"),
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Australia/Lord_Howe", "2026-04-05"),
    ("Australia/Lord_Howe", "2026-10-04"),
    ("America/Havana", "2026-03-08"),
    ("America/Havana", "2026-11-01"),
    ("UTC", "2028-02-29"),
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.tuples(*FIELDS), st.sampled_from(CHANGES), st.integers(0, 24 * 60))
def test_any_expression_is_right_around_a_change_of_clocks_wherever_one_begins(
    fields: tuple[str, ...], change: tuple[str, str], later_minutes: int
) -> None:
    expression, (zone, day) = " ".join(fields), change
    begin, end = seconds(day) - DAY // 2, seconds(day) + DAY * 2
    expected = list(oracle.ticks(expression, zone, begin, end))
    assert ticks_in(cron(expression, zone), begin, end) == expected
    start = begin + later_minutes * 60 + 17
    assert ticks_in(cron(expression, zone), start, end) == expected[bisect_right(expected, start) :]


@pytest.mark.parametrize("expression", ["*/10 * * * * *", "15 30 2 * * *", "*/20 30 2 * * *", "0,59 */30 2-3 * * *"])
@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
def test_seconds_are_right_too(expression: str, day: str) -> None:
    begin, end = seconds(day) - 3600, seconds(day) + 4 * 3600
    expected = list(oracle.ticks(expression, "Europe/Berlin", begin, end, step=1))
    assert ticks_in(cron(expression, "Europe/Berlin"), begin, end) == expected
    assert expected


def test_nomad_7289_a_daily_job_runs_once_on_each_day_of_both_dst_changes() -> None:
    zone = "Europe/Berlin"
    spring = ticks_in(cron("30 2 * * *", zone), seconds("2026-03-27T12:00"), seconds("2026-03-30T12:00"))
    assert shown(spring, zone) == [
        "2026-03-28T02:30:00+01:00",
        "2026-03-29T03:00:00+02:00",  # there is no 02:30: the first moment after
        "2026-03-30T02:30:00+02:00",
    ]
    autumn = ticks_in(cron("30 2 * * *", zone), seconds("2026-10-23T12:00"), seconds("2026-10-26T12:00"))
    assert shown(autumn, zone) == [
        "2026-10-24T02:30:00+02:00",
        "2026-10-25T02:30:00+02:00",  # it comes twice: the first
        "2026-10-26T02:30:00+01:00",
    ]


def test_an_hourly_job_runs_each_hour_that_passes_whatever_the_clock_shows() -> None:
    for day in ("2026-03-29", "2026-10-25"):
        ticks = ticks_in(cron("0 * * * *", "Europe/Berlin"), seconds(day) - DAY, seconds(day) + 2 * DAY)
        assert {later - earlier for earlier, later in pairwise(ticks)} == {3600}


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["0 * * * *", "*/5 * * * * *", "30 2 * * *", "0 0 29 2 *", "* * * 1 1 *", "0 0 * 2 MON#5"]),
    st.integers(0, 4 * 365 * DAY),
    st.integers(0, 4 * 365 * DAY),
    st.integers(1, 5),
)
def test_the_latest_ticks_are_the_last_of_all(expression: str, from_: int, span: int, most: int) -> None:
    timetable = cron(expression, "Europe/Berlin")
    after = seconds("2026-01-01") + from_
    until = after + span
    found = latest_ticks(timetable, after, until, most)
    # Whoever is told them all in order, from the first that is found on, is told just these and then none.
    assert len(found) <= most
    if found:
        assert tuple(islice(timetable.ticks(found[0] - 1), len(found))) == found
        assert found[0] > after
    following = tick_after(timetable, found[-1] if found else after)
    assert following is None or following > until
    if len(found) < most:
        assert latest_tick(timetable, after, (found[0] if found else until + 1) - 1) is None


def test_a_hundred_years_of_seconds_cost_no_more_than_a_day_of_them() -> None:
    for timetable in (cron("* * * * * *", "Europe/Berlin"), cron("* * * * 1 *", "UTC"), Every(1)):
        until = seconds("2126-08-01")
        found = latest_ticks(timetable, seconds("2026-01-01"), until, 100)
        assert len(found) == 100


GOOD = st.sampled_from(
    [
        "*",
        "0",
        "1",
        "2",
        "29",
        "30",
        "31",
        "H",
        "H(1-3)",
        "H(2-12)",
        "H/2",
        "H/7",
        "*/7",
        "1-5",
        "FEB",
        "2,4",
        "MON#5",
        "L",
    ]
)
ODD = st.text("0123456789*,/#()-HLWMONTUE@x² ", max_size=6)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(GOOD, GOOD, GOOD, GOOD, GOOD, GOOD, ODD), min_size=4, max_size=7), st.integers(0, 60))
@example(["0", "0", "30", "H", "*"], 8)
@example(["0", "0", "31", "H/2", "*"], 3)
def test_whatever_is_written_is_taken_or_refused_with_words(fields: list[str], number: int) -> None:
    """Taken of one job means that it comes for every job."""
    text, why = "", ""
    try:
        text = check_cron(" ".join(fields))
    except ValueError as error:
        why = str(error)
    assert len(why) > 10 or tick_after(cron(text, "Europe/Berlin", name=f"job-{number}"), 0) is not None


@pytest.mark.parametrize("day", [29, 30, 31])
@pytest.mark.parametrize("month", ["H", "H(1-2)", "H(4-6)", "H/2", "H/3", "H,2", "1,H", "H(3-12)/4"])
def test_an_expression_is_taken_if_it_comes_for_jobs_of_all_names(day: int, month: str) -> None:
    text = f"0 0 {day} {month} *"
    comes_for_all = all(comes(six_fields(text, name=f"job-{number}")) for number in range(100))
    if comes_for_all:
        assert check_cron(text) == text
    else:
        with pytest.raises(ValueError, match="its field day-of-month is wrong"):
            check_cron(text)


def test_one_on_record_that_never_comes_has_no_ticks() -> None:
    assert tick_after(Cron("0 0 0 30 2 *", ZoneInfo("UTC")), 0) is None


def test_every_depends_on_nothing_but_the_time() -> None:
    assert list(islice(Every(7200).ticks(7199), 3)) == [7200, 14400, 21600]
    assert tick_after(Every(7200), 7200) == 14400
    assert tick_after(At(5), 4) == 5
    assert tick_after(At(5), 5) is None


def test_h_is_the_same_number_each_time_and_another_one_for_another_job() -> None:
    expressions = {six_fields("H H(0-5) * * *", name=f"job-{number}") for number in range(50)}
    assert len(expressions) > 40
    assert all(int(one.split()[2]) <= 5 for one in expressions)
    assert six_fields("H H * * *", name="backup") == six_fields("H H * * *", name="backup")
    first, rest = six_fields("H/15 * * * *", name="backup").split()[1].split("-")
    assert rest == "59/15"
    assert int(first) < 15
    assert six_fields("* * * * THU", name="x") == "0 * * * * THU"
