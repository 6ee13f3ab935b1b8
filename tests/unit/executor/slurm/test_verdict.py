"""What is true of an attempt: each state of Slurm's that was seen to lie, and what it comes to."""

from __future__ import annotations

from typing import Any

import pytest

from jobletd.executor import Ended, Pending, Running
from jobletd.executor.slurm.client import SlurmJob
from jobletd.executor.slurm.records import Claim, Told
from jobletd.executor.slurm.verdict import Seen, Step, Verdict, decide, refined
from jobletd.model import End, Exited, NotStarted, Place, Reason, Unknown, Usage

GRACE = 30.0
NOW_NS = 7 * 10**9
CLAIMED = Told(claim=Claim("n2", "17"))
BEGUN = Told(claim=Claim("n2", "17"), state={"version": 1, "started_ns": 5, "limits": []})
RAN = Running(5, Usage(), (), Place("slurm", "17", "n2"))


def job(state: str, reason: str = "", *, node: str = "n2", code: int | None = None, started: int = 3) -> SlurmJob:
    return SlurmJob("17", "joblet-job-run-1", state, reason, node, code, started=started)


def verdict(found: SlurmJob | None, told: Told = BEGUN, *, over: float = GRACE, **more: Any) -> Verdict:
    given: dict[str, Any] = {"before": RAN if told.state else Pending(), "told_why": True, **more}
    seen = Seen("17", answered=True, job=found, told=told, over_seconds=over, **given)
    return decide(seen, grace_seconds=GRACE, now_ns=NOW_NS)


def ended(found: SlurmJob | None, told: Told = BEGUN, **more: Any) -> Ended:
    look = verdict(found, told, **more)
    assert isinstance(look.observation, Ended) and look.step is Step.GIVE_UP, look
    return look.observation


def test_a_waiting_job_tells_what_for_once_it_has_waited() -> None:
    waiting = job("PENDING", "Resources", node="", started=0)
    assert verdict(waiting, Told()).observation == Pending(
        "waits in Slurm's queue as job 17: Resources", Place("slurm", "17", "")
    )
    assert verdict(waiting, Told(), told_why=False).observation == Pending("", Place("slurm", "17", ""))


@pytest.mark.parametrize("state", ["RUNNING", "COMPLETING", "SUSPENDED"])
def test_it_runs_once_its_node_says_so(state: str) -> None:
    assert verdict(job(state)).observation == RAN
    assert verdict(job(state), CLAIMED).observation == Pending("", Place("slurm", "17", "n2"))


@pytest.mark.parametrize("state", ["COMPLETED", "FAILED", "NODE_FAIL", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY"])
def test_slurms_word_does_not_count_before_the_record_had_its_grace(state: str) -> None:
    assert verdict(job(state, code=0), over=GRACE - 1) == Verdict(RAN)


@pytest.mark.parametrize(
    ("state", "code", "outcome", "reason"),
    [
        ("COMPLETED", 0, Exited(0), Reason.COMPLETED),
        ("FAILED", 3, Exited(3), Reason.EXIT_CODE),
        ("FAILED", 137, Unknown, Reason.LOST),
        ("FAILED", 75, Unknown, Reason.LOST),
        ("FAILED", None, Unknown, Reason.LOST),
        ("NODE_FAIL", 0, Unknown, Reason.NODE_LOST),
        ("BOOT_FAIL", 0, Unknown, Reason.NODE_LOST),
        ("PREEMPTED", 0, Unknown, Reason.NODE_LOST),
        ("TIMEOUT", 0, Unknown, Reason.TIMED_OUT),
        ("OUT_OF_MEMORY", 0, Unknown, Reason.OOM_KILLED),
        ("CANCELLED", 0, Unknown, Reason.STOPPED),
    ],
)
def test_slurms_word_counts_second(state: str, code: int | None, outcome: object, reason: Reason) -> None:
    end = ended(job(state, code=code)).end
    assert end.reason is reason
    assert end.outcome == outcome or (isinstance(outcome, type) and isinstance(end.outcome, outcome))
    assert end.started_ns == 5 and end.place == Place("slurm", "17", "n2")


def test_a_launcher_that_is_not_there_is_named() -> None:
    end = ended(job("FAILED", code=127), Told(output="/opt/joblet/bin/joblet: not found")).end
    assert isinstance(end.outcome, NotStarted) and end.reason is Reason.START_ERROR
    assert "is joblet installed there?" in end.message and "not found" in end.message and "n2" in end.message


@pytest.mark.parametrize("reason", ["launch failed requeued held", "launch_failed_requeued_held", "JobHoldMaxRequeue"])
def test_a_job_held_as_never_launched_is_lost_if_it_was_claimed(reason: str) -> None:
    """Seen after slurmctld was killed two seconds after a start: the record decides, in its grace."""
    held = job("PENDING", reason)
    assert verdict(held, over=1).observation == RAN
    assert ended(held).end.reason is Reason.LOST
    never = ended(held, Told()).end
    assert never.reason is Reason.START_ERROR and reason in never.message


def test_a_job_held_by_somebody_waits() -> None:
    look = verdict(job("PENDING", "JobHeldAdmin", node="", started=0), Told()).observation
    assert isinstance(look, Pending) and "JobHeldAdmin" in look.why


def test_what_slurm_has_lost_is_handed_over_again_if_no_node_had_begun() -> None:
    assert verdict(None, Told(), over=1).step is Step.NONE
    assert verdict(None, Told()).step is Step.HAND_OVER_AGAIN
    assert ended(None, Told(), stopped=True).end.reason is Reason.STOPPED


def test_what_slurm_has_lost_and_a_node_had_begun_is_lost_after_its_grace() -> None:
    assert verdict(None, over=GRACE - 1) == Verdict(RAN)
    assert ended(None).end.reason is Reason.LOST


def test_while_slurm_is_away_nothing_is_decided() -> None:
    seen = Seen("17", False, None, BEGUN, RAN, over_seconds=10 * GRACE)
    assert decide(seen, grace_seconds=GRACE, now_ns=NOW_NS) == Verdict(RAN)
    seen = Seen("17", False, None, Told(), Pending(), trouble="no answer", told_why=True)
    look = decide(seen, grace_seconds=GRACE, now_ns=NOW_NS).observation
    assert isinstance(look, Pending) and "does not answer: no answer" in look.why


def test_a_stop_before_any_node_had_it_needs_no_grace() -> None:
    end = ended(job("CANCELLED", node="", started=0), Told(), over=0.0, stopped=True).end
    assert end.reason is Reason.STOPPED and "before it had begun" in end.message


def test_a_job_that_slurm_drops_at_its_launch_is_handed_over_again() -> None:
    """Seen after slurmctld was killed: it gives an id twice, the node refuses it and is drained for a Duplicate jobid."""
    assert verdict(job("CANCELLED"), Told(), over=1).step is Step.NONE
    assert verdict(job("CANCELLED"), Told()).step is Step.HAND_OVER_AGAIN
    assert ended(job("CANCELLED"), Told(), stopped=True).end.reason is Reason.STOPPED


def test_the_time_of_a_run_ends_it_in_the_queue() -> None:
    waiting = job("PENDING", "Priority", node="", started=0)
    assert verdict(waiting, Told(), time_is_up=True).step is Step.CANCEL
    end = ended(job("CANCELLED", node="", started=0), Told(), over=0.0, time_is_up=True).end
    assert end.reason is Reason.TIMED_OUT and "queue" in end.message


def test_what_was_given_up_stays_so() -> None:
    told = Told(claim=Claim(given_up="the node is gone", reason=Reason.NODE_LOST))
    look = verdict(job("RUNNING"), told).observation
    assert isinstance(look, Ended) and look.end.reason is Reason.NODE_LOST and look.end.message == "the node is gone"


@pytest.mark.parametrize(
    ("state", "reason"), [("TIMEOUT", Reason.TIMED_OUT), ("NODE_FAIL", Reason.NODE_LOST), ("COMPLETING", Reason.LOST)]
)
def test_a_record_that_nobody_saw_the_end_is_refined_by_slurms_word(state: str, reason: Reason) -> None:
    seen = Seen("17", answered=True, job=job(state), told=BEGUN, before=RAN)
    swept = End(Unknown("killed by Slurm"), Reason.LOST, 5, started_ns=3)
    found = refined(swept, seen)
    assert (found.reason, found.ended_ns, found.started_ns) == (reason, 5, 3)
    known = End(Exited(3), Reason.EXIT_CODE, 5)
    assert refined(known, seen) == known


SILENT = "n2: its daemon does not answer: Connection refused"
UNASKED = Told(silent=SILENT)


def test_nothing_follows_from_a_claim_that_could_not_be_asked_for() -> None:
    """Where no directory is shared, and the node's daemon is away: it may have begun, and is not handed over again."""
    assert verdict(job("RUNNING"), UNASKED).observation == Pending(SILENT, Place("slurm", "17", "n2"))
    lost = ended(None, UNASKED, before=RAN)
    assert (lost.end.reason, SILENT in lost.end.message) == (Reason.NODE_LOST, True)
    assert ended(job("PENDING", "launch failed requeued held", node=""), UNASKED).end.reason is Reason.NODE_LOST
    cancelled = ended(job("CANCELLED"), UNASKED)
    assert cancelled.end.reason is Reason.STOPPED and "before it had begun" not in cancelled.end.message
    assert verdict(None, UNASKED, over=GRACE - 1).step is Step.NONE


def test_slurms_word_counts_after_the_grace_where_a_node_does_not_answer() -> None:
    assert ended(job("FAILED", code=3), UNASKED).end.outcome == Exited(3)
    assert ended(job("NODE_FAIL"), UNASKED).end.reason is Reason.NODE_LOST
    for code in (70, 75, 126 + 7, None):
        assert ended(job("FAILED", code=code), UNASKED).end.reason is Reason.NODE_LOST
