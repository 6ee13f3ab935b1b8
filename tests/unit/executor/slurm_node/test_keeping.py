"""Claims that are made once, documents that come back as they were, and bounds on what a node keeps."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from jobletd.executor import Ended, Running
from jobletd.executor.slurm_node import kept
from jobletd.executor.slurm_node.directories import NodeDirectories
from jobletd.executor.slurm_node.place import CLAIM, EXIT, STATE, Place
from jobletd.executor.slurm_node.records import (
    DamagedRecord,
    ended_of,
    exit_document,
    running_of,
    state_document,
)
from jobletd.executor.slurm_node.request import Allocation
from jobletd.executor.slurm_node.running import status_of
from jobletd.executor.slurm_node.sweeping import Owner, owned, sweep
from jobletd.model import End, Exited, Killed, LimitStatus, NotStarted, Outcome, Reason, Unknown, Usage

HERE = Allocation("n1", "42")
LIMITS = (LimitStatus("memory", "64Mi", "64Mi", True, ""),)


def ended(outcome: Outcome = Unknown("nobody knows"), reason: Reason = Reason.LOST) -> Ended:  # noqa: B008
    usage = Usage(memory_peak_bytes=5, cpu_seconds=0.5, oom_kills=1)
    return Ended(End(outcome, reason, 9, 8, "a message", usage), LIMITS)


@pytest.fixture
def directories(tmp_path: Path) -> NodeDirectories:
    found = NodeDirectories(f"{tmp_path}/state", f"{tmp_path}/run")
    found.make()
    return found


def test_an_attempt_is_claimed_once_for_ever(tmp_path: Path) -> None:
    place = Place.of(str(tmp_path), "job-aaaa-1")
    assert place.claim({"node": "n1"})
    assert not place.claim({"node": "n2"})
    assert not place.claim({"node": "n1"})
    place.write(EXIT, {}, durable=False)
    place.forget()
    assert os.listdir(place.directory) == [CLAIM]
    claim = place.read(CLAIM)
    assert claim is not None and claim["node"] == "n1"


def test_an_end_comes_back_as_it_was() -> None:
    for one in (ended(), ended(NotStarted(126, "no such file"), Reason.START_ERROR)):
        document = json.loads(json.dumps(exit_document(None, one, "job-aaaa-1", HERE)))
        assert ended_of(document) == one
        assert (document["node"], document["slurm_job_id"]) == ("n1", "42")


def test_a_running_attempt_comes_back_with_its_limits() -> None:
    document = json.loads(json.dumps(state_document("job-aaaa-1", HERE, Running(7, Usage(pids=3), LIMITS))))
    assert running_of(document) == Running(7, Usage(), LIMITS)


@pytest.mark.parametrize(
    "change",
    [{"version": 9}, {"outcome": {"type": "exited"}}, {"end": None}, {"end": {"reason": "Magic"}}, {"ended_ns": "soon"}],
)  # fmt: skip
def test_a_damaged_end_is_no_end(change: dict[str, Any]) -> None:
    document = {**exit_document(None, ended(), "job-aaaa-1", HERE), **change}
    with pytest.raises(DamagedRecord):
        ended_of(document)
    with pytest.raises(DamagedRecord):
        running_of({})


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Exited(3), 3),
        (Killed("SIGKILL"), 137),
        (Killed("SIGRTMIN+1"), 163),
        (NotStarted(126, ""), 70),
        (Unknown(""), 70),
    ],
)
def test_the_status_is_that_of_a_shell(outcome: Outcome, status: int) -> None:
    assert status_of(ended(outcome).end) == status


def test_the_oldest_goes_when_there_is_too_much(directories: NodeDirectories, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_ATTEMPTS", 3)
    now = 1_000_000_000.0
    for number in range(5):
        place = directories.kept(f"job-aaaa-{number}")
        assert place.claim({})
        place.write(EXIT, {}, durable=False)
        os.utime(place.directory, (now - number, now - number))
    os.utime(directories.kept("job-aaaa-0").directory, (now - kept.LONGEST_SECONDS - 1,) * 2)
    os.mkdir(directories.live("job-aaaa-4"))
    assert kept.trim(directories, now) == 1
    assert sorted(os.listdir(f"{directories.state}/attempts")) == [f"job-aaaa-{number}" for number in (1, 2, 3, 4)]
    assert kept.trim(directories, now + 1) == 0  # it was looked at a second ago


def test_what_is_owned_stays_and_what_nobody_owns_is_told_and_removed(directories: NodeDirectories) -> None:
    place = directories.kept("job-aaaa-1")
    assert place.claim({})
    owner = Owner("job-aaaa-1", place.directory, "n1", "42", boot_id="an earlier one", remains=("/nowhere/joblet-x",))
    with owned(directories, owner):
        assert sweep(directories) == []
        assert os.path.isdir(directories.live("job-aaaa-1"))
        assert not place.has_ended
    assert sweep(directories) == []
    assert os.listdir(f"{directories.state}/live") == []
    document = place.read(EXIT)
    assert document is not None
    assert ended_of(document).end.reason is Reason.NODE_REBOOT
    assert place.read(STATE) is None
