"""The power fails in mid-load, and the machine boots again with the same disk and a wrong clock."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.guest.__main__ import PATIENCE
from tests.guest.boot import POWER_CUT, Guest, run

pytestmark = pytest.mark.timeout(300)

Facts = list[dict[str, Any]]


def boot(disk: Path, stage: str) -> tuple[int, Facts]:
    """Boot with that disk; what the stage tells, less a last line that the power cut may have cut as well."""
    out, err = io.BytesIO(), io.BytesIO()
    guest = Guest(
        command=(sys.executable, "-m", "tests.guest.power_cut", stage),
        environment={"JOBLET_TEST_PATIENCE": str(PATIENCE)},
        disk=disk,
        tmp_bytes=2 << 30,
        timeout_seconds=150,
    )
    status = run(guest, stdout=out, stderr=err)
    lines = out.getvalue().decode().split("\n")[:-1]
    assert status in (0, POWER_CUT), err.getvalue().decode() + "\n".join(lines)
    return status, [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> tuple[Facts, Facts]:
    disk = tmp_path_factory.mktemp("reboot") / "disk"
    status, before = boot(disk, "before")
    assert status == POWER_CUT
    status, after = boot(disk, "after")
    disk.unlink()
    assert status == 0
    return before, after


def the(facts: Facts, what: str, **found: Any) -> dict[str, Any]:
    """The only fact of that kind."""
    (one,) = (fact for fact in facts if fact["what"] == what and found.items() <= fact.items())
    return one


def test_a_clock_that_jumps_by_a_day_ends_and_delays_nothing(story: tuple[Facts, Facts]) -> None:
    before, _ = story
    jumps = [fact for fact in before if fact["what"] == "jumped"]
    assert [(fact["timed"]["phase"], len(fact["paused"]["attempts"])) for fact in jumps] == [("RUNNING", 1)] * 2
    end = the(before, "after jumps")
    assert (end["timed"]["phase"], end["timed"]["reason"]) == ("FAILED", "TimedOut")
    assert (end["paused"]["phase"], len(end["paused"]["attempts"])) == ("FAILED", 2)
    assert end["pause"] >= 10


def test_what_ran_when_the_power_failed_is_retried_as_its_manifest_says(story: tuple[Facts, Facts]) -> None:
    _, after = story
    running = the(after, "running")
    for name in ("retried", "service"):
        assert running[name]["attempts"] == [["FAILED", "NodeReboot"], ["RUNNING", ""]]
    for name in ("not-retried", "named-codes"):
        ended = the(after, "ended", job=name)["run"]
        assert (ended["phase"], ended["reason"], ended["code"]) == ("FAILED", "NodeReboot", None)
        assert ended["attempts"] == [["FAILED", "NodeReboot"]]


def test_history_is_intact_and_every_acknowledged_apply_is_there(story: tuple[Facts, Facts]) -> None:
    before, after = story
    assert the(before, "finished")["run"] == the(after, "finished")["run"]
    assert (the(after, "finished")["runs"], the(after, "finished")["log"]) == (1, "intact\n")
    for name in ("timed", "paused"):
        assert the(after, "ended", job=name)["run"] == the(before, "after jumps")[name]
    acknowledged = {fact["job"] for fact in before if fact["what"] == "acknowledged"}
    assert len(acknowledged) > 10
    loads = {fact["job"]: fact["run"] for fact in after if fact["what"] == "load"}
    assert acknowledged <= loads.keys()
    assert len(loads) - len(acknowledged) <= 1  # the apply that was under way
    for ended in loads.values():
        # No retry was asked for: it ran once, or the power failed while it did.
        assert (ended["phase"], ended["reason"], len(ended["attempts"])) in (
            ("COMPLETED", "Completed", 1),
            ("FAILED", "NodeReboot", 1),
        )
    assert the(after, "applied again")["action"] == "unchanged"


def test_a_schedule_is_intact_whatever_the_clock_says(story: tuple[Facts, Facts]) -> None:
    before, after = story
    planned = the(before, "scheduled")
    assert planned["due"] > 0 and planned["runs"] == 0
    assert the(after, "scheduled") == planned


def test_no_pid_of_before_is_trusted(story: tuple[Facts, Facts]) -> None:
    before, after = story
    boots = the(before, "boot"), the(after, "boot")
    assert boots[0]["id"] != boots[1]["id"]
    assert len(boots[1]["decoys"]) == 2
    assert set(boots[1]["decoys"]) <= set(boots[0]["pids"].values())
    assert boots[1]["alive"] == boots[1]["decoys"]


def test_nothing_of_the_lost_attempts_stays(story: tuple[Facts, Facts]) -> None:
    _, after = story
    assert the(after, "stopped") == {"what": "stopped", "status": 0, "left": []}
