"""What may stand in ``schedule``, and what is said of what may not."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator

from joblet.manifest import compare, manifest_from_json, manifest_to_json, schema_of, to_yaml
from joblet.manifest.comparison import ChangeKind
from tests.unit.manifest.samples import errors, manifest_text, raw, read

SCHEMA = Draft202012Validator(schema_of("Job"))


def with_schedule(schedule: str, more: str = "") -> str:
    return manifest_text(f'command: ["true"]\nschedule: {schedule}\n{more}')


@pytest.mark.parametrize(
    "schedule",
    [
        {"cron": "0 2 * * *"},
        {"cron": "*/10 0 2 * * *", "timezone": "Europe/Berlin"},
        {"cron": "H H(0-5) * JAN-MAR MON#1"},
        {"cron": "H/15 * L * *"},
        {"cron": "@daily", "jitter": "5m", "overlap": "Queue"},
        {"at": "2027-01-31T02:00:00+01:00"},
        {"every": "90s", "missed": "all", "missedLimit": 3, "startingDeadline": "1h", "suspend": True},
    ],
)
def test_a_schedule_is_read_and_written_back_as_the_same(schedule: dict[str, object]) -> None:
    manifest = raw(command=["true"], schedule=schedule)
    SCHEMA.validate(manifest)
    (read_once,) = read(json.dumps(manifest), "job.json")
    assert read(to_yaml(read_once)) == (read_once,)
    assert manifest_from_json(manifest_to_json(read_once)) == read_once


@pytest.mark.parametrize(
    ("schedule", "path", "words"),
    [
        ('{cron: "61 * * * *"}', "spec.schedule.cron", "its field minute is wrong (0 to 59"),
        ('{cron: "0 0 * * FOO"}', "spec.schedule.cron", "its field day-of-week is wrong"),
        ('{cron: "0 0 31 2 *"}', "spec.schedule.cron", "its field day-of-month is wrong"),
        ('{cron: "0 0 * *"}', "spec.schedule.cron", "is no cron expression: five fields, or six"),
        ('{cron: "H(9-3) * * * *"}', "spec.schedule.cron", "is out of range (0 to 59)"),
        ('{cron: "H/99 * * * *"}', "spec.schedule.cron", "step that is out of range (1 to 60)"),
        ('{cron: "H- * * * *"}', "spec.schedule.cron", "use H, H/15"),
        ('{cron: "@reboot"}', "spec.schedule.cron", "restart: Always"),
        ("{cron: 5}", "spec.schedule.cron", "write it in quotes"),
        ('{cron: "@daily", timezone: Europe/Berlni}', "spec.schedule.timezone", "did you mean Europe/Berlin?"),
        ('{cron: "@daily", timezone: ../../etc/passwd}', "spec.schedule.timezone", "is not a time zone"),
        ("{at: 2027-01-31}", "spec.schedule.at", "is not a time (use 2027-01-31T02:00:00Z"),
        ("{at: 2027-02-31T02:00:00Z}", "spec.schedule.at", "is not a time: "),
        ("{at: 9999-12-31T23:59:59-12:00}", "spec.schedule.at", "is out of range"),
        ("{every: 500ms}", "spec.schedule.every", "whole seconds, 1s to 366d"),
        ("{every: 5}", "spec.schedule.every", "has no unit"),
        ("{every: 5m, overlap: Never}", "spec.schedule.overlap", "use Forbid, Allow, Replace, Queue"),
        ("{every: 5m, timezone: UTC}", "spec.schedule.timezone", "works only with cron"),
        ("{every: 5m, missedLimit: 3}", "spec.schedule.missedLimit", "works only with missed: all"),
        ("{overlap: Allow}", "spec.schedule", "says not when; exactly one of cron, at and every"),
        ('{every: 5m, cron: "@daily"}', "spec.schedule", "cron and every are given"),
    ],
)
def test_a_wrong_schedule_is_told_with_its_place_and_the_way_out(schedule: str, path: str, words: str) -> None:
    found = [error for error in errors(with_schedule(schedule)) if error.path == path]
    assert found
    assert words in str(found[0])


def test_a_service_has_no_schedule() -> None:
    (error,) = errors(with_schedule("{every: 5m}", "restart: Always"))
    assert error.path == "spec.restart"
    assert "a job with a schedule may have Never or OnFailure" in str(error)


def test_a_changed_schedule_restarts_nothing() -> None:
    (before,) = read(with_schedule("{every: 5m}"))
    (after,) = read(with_schedule('{cron: "@daily", overlap: Allow}'))
    assert compare(before, after).kind is ChangeKind.IN_PLACE
