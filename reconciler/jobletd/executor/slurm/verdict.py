"""What is true of an attempt, from what its node, Slurm and the clock say: pure functions.

The exit record counts first, wherever Slurm stands. Slurm's own word counts second, and only once the record has had its grace to
come. What neither tells is lost, and never before it was made sure that no node begins it any more. A node that does not answer
where no directory is shared has told nothing, not even that it had not begun: then nothing is concluded from a claim that is
missing, and what Slurm does not know either is lost with its node.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from jobletd.executor import Ended, Observation, Pending, Running
from jobletd.executor.slurm.client import ENGINE, SlurmJob
from jobletd.executor.slurm.records import Told
from jobletd.executor.slurm_node.records import DamagedRecord, running_of, usage_of
from jobletd.model import End, Exited, NotStarted, Outcome, Place, Reason, Unknown, Usage

WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
ACTIVE = ("RUNNING", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SIGNALING", "RESIZING", "SUSPENDED", "STOPPED")
TELLING = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "TIMEOUT", "DEADLINE", "OUT_OF_MEMORY", "CANCELLED", "REVOKED")
LAUNCHER_EXITS = {70: "the launcher could not start it", 75: "the attempt was claimed by another job"}
_NO_LAUNCHER = (126, 127)
# Slurm holds a job for good that it could not launch, or believes so.
_HELD_FOR_GOOD = ("launch failed requeued held", "launch_failed_requeued_held", "JobHoldMaxRequeue")


class Step(Enum):
    """What is to be done besides telling."""

    NONE = "none"
    HAND_OVER_AGAIN = "hand over again"  # Slurm has lost it, and no node had begun
    GIVE_UP = "give up"  # make sure that no node begins it; then it has ended as told
    CANCEL = "cancel"  # its time was up while it waited


@dataclass(frozen=True, slots=True)
class Seen:
    """answered: whether Slurm did, this time. job: as Slurm sees it; None: not at all. job_id: what it was given, empty: not
    yet. over_seconds: since Slurm first said that it is over, held for good or gone. before: the observation so far.
    trouble: why it could not be handed over yet. told_why: whether it has waited long enough to be told about.
    """

    job_id: str
    answered: bool
    job: SlurmJob | None
    told: Told
    before: Observation
    over_seconds: float = 0.0
    trouble: str = ""
    told_why: bool = False
    stopped: bool = False
    time_is_up: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to tell, and what to do."""

    observation: Observation
    step: Step = Step.NONE


def decide(seen: Seen, *, grace_seconds: float, now_ns: int) -> Verdict:
    """See the module. The exit record was looked at before."""
    claim = seen.told.claim
    if claim is not None and claim.given_up:
        return Verdict(_ended(seen, Unknown(claim.given_up), claim.reason, claim.given_up, now_ns))
    if not seen.answered:
        return Verdict(_still(seen, f"Slurm does not answer: {seen.trouble}" if seen.trouble else ""))
    if seen.job is None:
        return _gone(seen, grace_seconds, now_ns)
    if is_held_for_good(seen.job):
        return _held(seen, seen.job, grace_seconds, now_ns)
    if seen.job.state in ACTIVE and seen.told.state is not None:
        return Verdict(_running(seen))
    if seen.job.state in ACTIVE:
        return Verdict(Pending(seen.told.silent if seen.told_why else "", place_of(seen)))
    if seen.job.state in WAITING:
        step = Step.CANCEL if seen.time_is_up else Step.NONE
        return Verdict(Pending(_why(seen, seen.job), place_of(seen)), step)
    return _over(seen, seen.job, grace_seconds, now_ns)


def is_over(job: SlurmJob) -> bool:
    """Whether Slurm is done with it, one way or another."""
    return job.state not in WAITING and job.state not in ACTIVE


def is_held_for_good(job: SlurmJob) -> bool:
    return job.state in WAITING and any(word in job.reason for word in _HELD_FOR_GOOD)


def place_of(seen: Seen) -> Place:
    claim = seen.told.claim
    job = claim.job if claim is not None and claim.job else seen.job_id
    node = claim.node if claim is not None and claim.node else seen.job.node if seen.job is not None else ""
    if not node and not isinstance(seen.before, Ended):
        before = getattr(seen.before, "place", None)
        node = before.node if before is not None else ""
    return Place(ENGINE, job, node)


def _still(seen: Seen, why: str) -> Observation:
    """As before, as far as anybody can tell."""
    if seen.told.state is not None or isinstance(seen.before, Running):
        return _running(seen)
    return Pending(why if seen.told_why else "", place_of(seen))


def _running(seen: Seen) -> Running:
    """Once it was seen to run it does so until something else is known."""
    before = seen.before if isinstance(seen.before, Running) else None
    if seen.told.state is None and before is not None:
        return Running(before.started_ns, before.usage, before.limits, place_of(seen), before.usage_ns)
    assert seen.told.state is not None
    try:
        told = running_of(seen.told.state)
    except DamagedRecord:  # that it was written is what counts
        return Running(now_of(seen), Usage(), (), place_of(seen))
    usage, usage_ns = used(seen.told)
    return Running(told.started_ns, usage, told.limits, place_of(seen), usage_ns)


def used(told: Told) -> tuple[Usage, int | None]:
    """As its node noted it last, and when. A note that makes no sense is none."""
    if told.usage is None:
        return Usage(), None
    try:
        return usage_of(told.usage)
    except DamagedRecord:
        return Usage(), None


def now_of(seen: Seen) -> int:
    """When it was started, as Slurm has it."""
    return seen.job.started * 10**9 if seen.job is not None else 0


def _gone(seen: Seen, grace_seconds: float, now_ns: int) -> Verdict:
    """Slurm knows of no such job: never, not any more, or because it lost its own state."""
    if not seen.job_id and seen.told.claim is None:
        return Verdict(_still(seen, seen.trouble))
    if seen.over_seconds < grace_seconds:
        return Verdict(_still(seen, ""))
    if seen.told.silent:
        return _lost_with_its_node(seen, f"Slurm no longer knows job {seen.job_id}", now_ns)
    if seen.told.claim is None:
        if seen.stopped:
            why = "it was stopped before any node had begun it"
            return Verdict(_ended(seen, Unknown(why), Reason.STOPPED, why, now_ns), Step.GIVE_UP)
        return Verdict(_still(seen, f"Slurm has lost its job {seen.job_id}"), Step.HAND_OVER_AGAIN)
    why = f"Slurm no longer knows job {seen.job_id}, and its node left no exit record; its exit code is not known"
    return Verdict(_ended(seen, Unknown(why), Reason.LOST, why, now_ns), Step.GIVE_UP)


def _held(seen: Seen, job: SlurmJob, grace_seconds: float, now_ns: int) -> Verdict:
    """Held by Slurm as never launched: a node may have run it all the same, and then its record comes."""
    if seen.over_seconds < grace_seconds:
        return Verdict(_still(seen, _why(seen, job)))
    if seen.told.silent:
        return _lost_with_its_node(seen, f"Slurm holds job {job.id} ({job.reason})", now_ns)
    if seen.told.claim is None:
        why = f"Slurm could not launch job {job.id}{_on(job)}: {job.reason}"
        return Verdict(_ended(seen, NotStarted(126, why), Reason.START_ERROR, why, now_ns), Step.GIVE_UP)
    why = f"Slurm holds job {job.id} ({job.reason}), and its node left no exit record; its exit code is not known"
    return Verdict(_ended(seen, Unknown(why), Reason.LOST, why, now_ns), Step.GIVE_UP)


def _over(seen: Seen, job: SlurmJob, grace_seconds: float, now_ns: int) -> Verdict:
    """Slurm says that it is over; its own word counts once the record has had time to come, or cannot come at all."""
    never_placed = seen.told.claim is None and not job.node and job.started == 0
    if seen.over_seconds < grace_seconds and not never_placed:
        return Verdict(_still(seen, ""))
    if (
        job.state == "CANCELLED"
        and not never_placed
        and seen.told.claim is None
        and not seen.told.silent
        and not (seen.stopped or seen.time_is_up)
    ):
        # Slurm itself, at the launch: after a loss of its state it gives an id twice, which a node refuses (Duplicate jobid).
        return Verdict(_still(seen, f"Slurm dropped its job {job.id}{_on(job)} at the launch"), Step.HAND_OVER_AGAIN)
    outcome, reason, why = by_slurm(job, seen)
    return Verdict(_ended(seen, outcome, reason, why, now_ns), Step.GIVE_UP)


def _lost_with_its_node(seen: Seen, what: str, now_ns: int) -> Verdict:
    """Nobody can be asked whether it had begun, or how it ended."""
    why = f"{what}, and a node did not answer; its exit code is not known: {seen.told.silent}"
    return Verdict(_ended(seen, Unknown(why), Reason.NODE_LOST, why, now_ns), Step.GIVE_UP)


def refined(end: End, seen: Seen) -> End:
    """A record that only says that nobody saw the end: Slurm may know why it came."""
    if not isinstance(end.outcome, Unknown) or end.reason is not Reason.LOST or seen.job is None:
        return end
    if seen.job.state not in TELLING:
        return end
    outcome, reason, why = by_slurm(seen.job, seen)
    return replace(end, outcome=outcome, reason=reason, message=why)


def by_slurm(job: SlurmJob, seen: Seen) -> tuple[Outcome, Reason, str]:
    """How it ended, as far as Slurm's word goes."""
    recorded = "its node did not answer" if seen.told.silent else "its node recorded no exit code"
    by = f"as Slurm tells of job {job.id}{_on(job)}; {recorded}"
    match job.state:
        case "NODE_FAIL" | "BOOT_FAIL":
            why = f"its node {job.node or 'of Slurm'} was lost (Slurm job {job.id}: {job.state}); its exit code is not known"
            return Unknown(why), Reason.NODE_LOST, why
        case "PREEMPTED":
            why = f"Slurm took its node away for another job (job {job.id}: PREEMPTED)"
            return Unknown(why), Reason.NODE_LOST, why
        case "TIMEOUT" | "DEADLINE":
            why = f"ended by Slurm's time limit, {by}"
            return Unknown(why), Reason.TIMED_OUT, why
        case "OUT_OF_MEMORY":
            why = f"killed for memory, {by}"
            return Unknown(why), Reason.OOM_KILLED, why
        case "CANCELLED" | "REVOKED":
            if seen.time_is_up:
                why = f"its time was up while it waited in Slurm's queue as job {job.id}"
                return Unknown(why), Reason.TIMED_OUT, why
            begun = "" if seen.told.claim is not None or seen.told.silent else " before it had begun"
            who = "it was stopped" if seen.stopped else "somebody cancelled it"
            why = f"{who}{begun} as Slurm job {job.id}"
            return Unknown(why), Reason.STOPPED, why
    return _by_exit_code(job, seen, by)


def _by_exit_code(job: SlurmJob, seen: Seen, by: str) -> tuple[Outcome, Reason, str]:
    """The launcher ends as its command does; what it cannot have from there is not passed on as such."""
    code = job.exit_code
    if seen.told.claim is None and not seen.told.silent and job.state != "COMPLETED":
        said = f": {seen.told.output}" if seen.told.output else ""
        mend = " (is joblet installed there?)" if code in _NO_LAUNCHER else ""
        why = f"Slurm job {job.id}{_on(job)} ended with {code} before joblet had begun{mend}{said}"
        return NotStarted(code if code in _NO_LAUNCHER else 126, why), Reason.START_ERROR, why
    if code is None or job.exit_signal or code in LAUNCHER_EXITS or code > 127:
        why = f"{LAUNCHER_EXITS.get(code or 0, 'its exit code is not known')}, {by}"
        return Unknown(why), Reason.NODE_LOST if seen.told.silent else Reason.LOST, why
    why = f"exited with code {code}, {by}"
    return Exited(code), Reason.EXIT_CODE if code else Reason.COMPLETED, why


def _ended(seen: Seen, outcome: Outcome, reason: Reason, why: str, now_ns: int) -> Ended:
    before = seen.before if isinstance(seen.before, Running) else None
    started_ns = before.started_ns if before is not None else None
    end = End(outcome, reason, now_ns, started_ns, why, place=place_of(seen))
    return Ended(end, before.limits if before is not None else ())


def _why(seen: Seen, job: SlurmJob) -> str:
    if not seen.told_why:
        return ""
    return f"waits in Slurm's queue as job {job.id}: {job.reason or job.state}"


def _on(job: SlurmJob) -> str:
    return f" on {job.node}" if job.node else ""
