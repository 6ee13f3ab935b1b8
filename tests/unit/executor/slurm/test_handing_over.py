"""Handing over, looking up, stopping: against a Slurm that loses answers, whose state is a list in memory."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from joblet.clock import SystemClock
from joblet.manifest import JobManifest
from jobletd.executor import AttemptRequest, Ended, EngineNode, Observation, Pending, Running
from jobletd.executor.slurm import SlurmExecutor, SlurmSettings, polling, tracking
from jobletd.executor.slurm.client import SlurmJob, SlurmRefused, SlurmUnavailable, Submission
from jobletd.model import AttemptId, NotStarted, Reason, Usage
from tests.timing import PATIENCE

ATTEMPT = AttemptId("one-run-1")
NAME = f"joblet-{ATTEMPT}"


class FakeSlurm:
    """away: nothing is answered. loses_answers: so many submissions are taken and not answered. refuses: why.
    forgets_cancels: so many have no effect."""

    def __init__(self) -> None:
        self.list: dict[str, SlurmJob] = {}
        self.submitted: list[str] = []
        self.asked: list[tuple[str, str]] = []
        self.queries = 0
        self.away = False
        self.hangs = threading.Event()
        self.hangs.set()
        self.loses_answers = 0
        self.forgets_cancels = 0
        self.refuses = ""
        self._ids = itertools.count(1)

    def _reach(self) -> None:
        self.hangs.wait(30 * PATIENCE)
        if self.away:
            raise SlurmUnavailable("is away", maybe_done=True)

    def submit(self, submission: Submission) -> str:
        self._reach()
        if self.refuses:
            raise SlurmRefused(self.refuses)
        job_id = self.add(submission.name)
        self.submitted.append(submission.name)
        if self.loses_answers:
            self.loses_answers -= 1
            raise SlurmUnavailable("the answer was lost", maybe_done=True)
        return job_id

    def add(self, name: str) -> str:
        job_id = str(next(self._ids))
        self.list[job_id] = SlurmJob(job_id, name, "PENDING", "Resources")
        return job_id

    def jobs(self) -> Sequence[SlurmJob]:
        self._reach()
        self.queries += 1
        return list(self.list.values())

    def find(self, name: str) -> Sequence[SlurmJob]:
        self._reach()
        return [job for job in list(self.list.values()) if job.name == name]  # as a whole: tests change it meanwhile

    def _stop(self, how: str, ids: Sequence[str]) -> None:
        self._reach()
        self.asked += [(how, job_id) for job_id in ids]
        if how == "cancel" and self.forgets_cancels:
            self.forgets_cancels -= 1
        elif how == "cancel":
            self.list |= {job_id: replace(self.list[job_id], state="CANCELLED") for job_id in ids}

    def terminate(self, ids: Sequence[str]) -> None:
        self._stop("terminate", ids)

    def kill(self, ids: Sequence[str]) -> None:
        self._stop("kill", ids)

    def cancel(self, ids: Sequence[str]) -> None:
        self._stop("cancel", ids)

    def nodes(self) -> Sequence[EngineNode]:
        return []


class World:
    """One host's files, and Slurm; daemons come and go."""

    def __init__(self, directory: Path) -> None:
        self.slurm = FakeSlurm()
        self.settings = SlurmSettings(
            directory=f"{directory}/host",
            shared_directory=f"{directory}/shared",
            shortest_poll_seconds=0.01,
            longest_poll_seconds=0.02,
            grace_seconds=0.05,
        )

    def play(self, scene: Callable[[SlurmExecutor], Awaitable[None]]) -> None:
        async def run() -> None:
            executor = SlurmExecutor(self.settings, self.slurm, SystemClock())
            await executor.start()
            try:
                await scene(executor)
            finally:
                self.slurm.hangs.set()
                await executor.close()

        asyncio.run(run())

    def tell(self, name: str, **document: object) -> None:
        """What a node writes."""
        path = Path(self.settings.attempt_directory(ATTEMPT), name)
        path.with_suffix(".new").write_text(json.dumps(document))
        path.with_suffix(".new").rename(path)

    def say(self, text: str) -> None:
        """What its command writes."""
        Path(self.settings.attempt_directory(ATTEMPT), "log").write_text(text)

    def read(self, name: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(Path(self.settings.attempt_directory(ATTEMPT), name).read_text())
        return found


def request(**spec: object) -> AttemptRequest:
    document = {
        "apiVersion": "joblet/v1",
        "kind": "Job",
        "metadata": {"name": "one"},
        "spec": {"command": ["true"], **spec},
    }
    return AttemptRequest(ATTEMPT, "run", 1, JobManifest.model_validate(document), None)


async def look(executor: SlurmExecutor) -> Observation:
    return (await executor.observe([ATTEMPT]))[ATTEMPT]


async def until(what: Callable[[], object]) -> None:
    async with asyncio.timeout(20 * PATIENCE):
        while not what():
            await asyncio.sleep(0.005)


async def ended(executor: SlurmExecutor) -> Ended:
    async with asyncio.timeout(20 * PATIENCE):
        while not isinstance(seen := await look(executor), Ended):
            await asyncio.sleep(0.005)
    return seen


def test_a_submission_whose_answer_is_lost_is_looked_up_and_not_repeated(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.slurm.loses_answers = 1

    async def scene(executor: SlurmExecutor) -> None:
        await executor.submit(request())
        await until(lambda: executor._tracked[ATTEMPT].job_id == "1")
        assert world.slurm.submitted == [NAME]

    world.play(scene)


def test_what_a_daemon_that_died_had_handed_over_is_found_by_its_name(tmp_path: Path) -> None:
    """It was killed between Slurm's answer and its own record of it; and also where not even that record was left."""
    world = World(tmp_path)
    world.slurm.add(NAME)

    async def scene(executor: SlurmExecutor) -> None:
        await executor.submit(request())
        await until(lambda: executor._tracked[ATTEMPT].job_id == "1")
        assert world.slurm.submitted == []

    world.play(scene)


def test_nobody_waits_for_a_slurm_that_hangs(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.slurm.hangs.clear()

    async def scene(executor: SlurmExecutor) -> None:
        async with asyncio.timeout(5 * PATIENCE):
            await executor.submit(request())
            assert isinstance(await look(executor), Pending)
            await executor.cancel(ATTEMPT, force=False)
        world.slurm.hangs.set()
        assert (await ended(executor)).end.reason is Reason.STOPPED
        assert world.slurm.submitted == []

    world.play(scene)


def test_a_slurm_that_is_away_is_tried_until_it_is_back(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.slurm.away = True

    async def scene(executor: SlurmExecutor) -> None:
        await executor.submit(request())
        await until(lambda: not executor.standing()[0].available)
        assert "is away" in executor.standing()[0].why
        world.slurm.away = False
        await until(lambda: world.slurm.submitted == [NAME] and executor.standing()[0].available)

    world.play(scene)


def test_what_slurm_refuses_has_ended(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.slurm.refuses = "Invalid qos specification"

    async def scene(executor: SlurmExecutor) -> None:
        await executor.submit(request())
        end = (await ended(executor)).end
        assert isinstance(end.outcome, NotStarted) and end.reason is Reason.START_ERROR and "Invalid qos" in end.message

    world.play(scene)


def test_a_job_that_slurm_has_lost_is_handed_over_again_unless_it_was_claimed(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def scene(executor: SlurmExecutor) -> None:
        await executor.submit(request())
        await until(lambda: world.slurm.submitted == [NAME])
        world.slurm.list.clear()
        await until(lambda: world.slurm.submitted == [NAME, NAME])
        world.tell("claim", node="n1", slurm_job_id="2")
        world.slurm.list.clear()
        assert (await ended(executor)).end.reason is Reason.LOST
        assert world.slurm.submitted == [NAME, NAME]

    world.play(scene)


def test_a_lost_node_gives_the_attempt_up_so_that_it_never_begins(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def scene(executor: SlurmExecutor) -> None:
        await executor.submit(request())
        await until(lambda: "1" in world.slurm.list)
        world.slurm.list["1"] = SlurmJob("1", NAME, "NODE_FAIL", node="n1", started=5)
        assert (await ended(executor)).end.reason is Reason.NODE_LOST
        claim = world.read("claim")
        assert claim["node"] == "" and claim["reason"] == "NodeLost"

    world.play(scene)


EXIT = {
    "version": 1,
    "outcome": {"type": "exited", "code": 5},
    "started_ns": 1,
    "ended_ns": 2,
    "end": {"reason": "ExitCode", "message": "exited with code 5", "usage": {}},
}


def test_the_record_of_a_node_counts_whatever_slurm_says(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def scene(executor: SlurmExecutor) -> None:
        await executor.submit(request())
        await until(lambda: "1" in world.slurm.list)
        world.tell("claim", node="n1", slurm_job_id="1")
        world.tell("exit.json", **EXIT)
        world.slurm.list["1"] = SlurmJob("1", NAME, "PENDING", "launch failed requeued held")
        end = (await ended(executor)).end
        assert (end.reason, end.ended_ns, end.place and end.place.node) == (Reason.EXIT_CODE, 2, "n1")

    world.play(scene)


def test_an_end_is_seen_soon_however_seldom_slurm_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "GROWTH", 10**6)
    world = World(tmp_path)
    world.settings = replace(world.settings, longest_poll_seconds=3600)

    async def scene(executor: SlurmExecutor) -> None:
        await executor.submit(request())
        await until(lambda: "1" in world.slurm.list)
        world.tell("claim", node="n1", slurm_job_id="1")
        world.tell("state.json", version=1, started_ns=7, limits=[])
        world.slurm.list["1"] = SlurmJob("1", NAME, "RUNNING", node="n1", started=5)
        await until(lambda: isinstance(executor._look(ATTEMPT), Running))
        await until(lambda: executor._pace._pause == 3600)
        queries = world.slurm.queries
        world.tell("exit.json", **EXIT)
        assert (await ended(executor)).end.reason is Reason.EXIT_CODE
        assert world.slurm.queries <= queries + 3

    world.play(scene)


def test_the_record_counts_of_an_attempt_that_slurm_shows_as_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed slurmctld goes on from a state in which it waits, maybe for ever: for a node that is drained by now."""
    monkeypatch.setattr(tracking, "WAITING_SECONDS", 0.05)
    world = World(tmp_path)

    async def scene(executor: SlurmExecutor) -> None:
        await executor.submit(request())
        await until(lambda: "1" in world.slurm.list)
        world.tell("claim", node="n1", slurm_job_id="1")
        world.tell("exit.json", **EXIT)
        assert (await ended(executor)).end.reason is Reason.EXIT_CODE
        await until(lambda: ("cancel", "1") in world.slurm.asked)

    world.play(scene)


def test_a_job_that_slurm_keeps_of_an_ended_attempt_is_cancelled(tmp_path: Path) -> None:
    """A killed slurmctld goes on from a state in which it had not begun: held, or queued again, also after our own restart."""
    world = World(tmp_path)
    somebody = world.slurm.add("joblet-theirs-run-1")  # of another daemon

    async def before(executor: SlurmExecutor) -> None:
        await executor.submit(request())
        await until(lambda: "2" in world.slurm.list)
        world.tell("claim", node="n1", slurm_job_id="2")
        world.tell("exit.json", **EXIT)
        world.slurm.list["2"] = SlurmJob("2", NAME, "RUNNING", node="n1", started=5)
        await ended(executor)
        await executor.forget(ATTEMPT)
        world.slurm.list["2"] = SlurmJob("2", NAME, "PENDING", "launch failed requeued held")
        await until(lambda: ("cancel", "2") in world.slurm.asked)

    async def after(executor: SlurmExecutor) -> None:
        await until(lambda: ("cancel", "2") in world.slurm.asked)
        await until(lambda: not executor._watch.awaits_ends)

    world.play(before)
    world.slurm.asked.clear()
    world.slurm.list["2"] = SlurmJob("2", NAME, "RUNNING", node="n1", started=5)
    world.play(after)
    assert world.slurm.list[somebody].state == "PENDING"


def test_a_job_of_an_ended_attempt_has_time_to_be_over_by_itself(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.settings = replace(world.settings, grace_seconds=600)

    async def scene(executor: SlurmExecutor) -> None:
        await executor.submit(request())
        await until(lambda: "1" in world.slurm.list)
        world.tell("claim", node="n1", slurm_job_id="1")
        world.tell("exit.json", **EXIT)
        world.slurm.list["1"] = SlurmJob("1", NAME, "RUNNING", node="n1", started=5)
        await ended(executor)
        await executor.forget(ATTEMPT)
        await until(lambda: executor._watch.awaits_ends)
        world.slurm.list["1"] = SlurmJob("1", NAME, "COMPLETED", node="n1", started=5)
        await until(lambda: not executor._watch.awaits_ends)
        assert world.slurm.asked == []

    world.play(scene)


def test_an_attempt_whose_end_is_on_record_is_forgotten_after_a_restart_and_its_output_stays(tmp_path: Path) -> None:
    """The daemon was killed between the end's commit and the forgetting."""
    world = World(tmp_path)
    log = Path(world.settings.attempt_directory(ATTEMPT), "log")

    async def before(executor: SlurmExecutor) -> None:
        await executor.submit(request())
        await until(lambda: "1" in world.slurm.list)
        world.tell("claim", node="n1", slurm_job_id="1")
        world.say("what it said")
        world.slurm.list["1"] = SlurmJob("1", NAME, "COMPLETED", node="n1", started=5, exit_code=0)
        world.tell("exit.json", **EXIT)

    async def after(executor: SlurmExecutor) -> None:
        await executor.prune([])
        await until(lambda: ATTEMPT not in executor._tracked)
        assert executor.knows(ATTEMPT)

    world.play(before)
    world.play(after)
    assert log.read_text() == "what it said"


def test_what_its_node_notes_of_usage_is_shown_until_another_note_comes(tmp_path: Path) -> None:
    world = World(tmp_path)

    def shown(executor: SlurmExecutor) -> Running | None:
        return seen if isinstance(seen := executor._look(ATTEMPT), Running) else None

    async def scene(executor: SlurmExecutor) -> None:
        await executor.submit(request())
        await until(lambda: "1" in world.slurm.list)
        world.tell("claim", node="n1", slurm_job_id="1")
        world.tell("state.json", version=1, started_ns=7, limits=[])
        world.tell("usage.json", version=1, read_ns=9, usage={"memory_bytes": 4096, "cpu_seconds": 1.5})
        world.slurm.list["1"] = SlurmJob("1", NAME, "RUNNING", node="n1", started=5)
        await until(lambda: (one := shown(executor)) and one.usage == Usage(memory_bytes=4096, cpu_seconds=1.5))
        one = shown(executor)
        assert one is not None and one.usage_ns == 9
        world.tell("usage.json", version=1, read_ns="damaged", usage={})
        executor._tracked[ATTEMPT].usage_read_at = 0.0
        await until(lambda: (one := shown(executor)) and one.usage == Usage())

    world.play(scene)


def test_a_cancelled_job_that_slurm_has_back_is_cancelled_again(tmp_path: Path) -> None:
    """slurmctld was killed and goes on from a state before the cancellation."""
    world = World(tmp_path)
    world.settings = replace(world.settings, stop_seconds=0.05)
    world.slurm.forgets_cancels = 1

    async def scene(executor: SlurmExecutor) -> None:
        await executor.submit(request())
        await until(lambda: "1" in world.slurm.list)
        await executor.cancel(ATTEMPT, force=False)
        assert (await ended(executor)).end.reason is Reason.STOPPED
        assert world.slurm.asked == [("cancel", "1"), ("cancel", "1")]

    world.play(scene)


def test_doubles_are_cancelled_and_the_one_that_was_claimed_counts(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def scene(executor: SlurmExecutor) -> None:
        await executor.submit(request())
        await until(lambda: "1" in world.slurm.list)
        second = world.slurm.add(NAME)
        await until(lambda: ("cancel", second) in world.slurm.asked)
        assert ("cancel", "1") not in world.slurm.asked

    world.play(scene)


def test_a_stop_is_asked_for_gently_then_by_force_then_taken_away(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.settings = replace(world.settings, stop_seconds=0.05)

    async def scene(executor: SlurmExecutor) -> None:
        await executor.submit(request(stop={"grace": "10m"}))
        await until(lambda: "1" in world.slurm.list)
        world.tell("claim", node="n1", slurm_job_id="1")
        world.tell("state.json", version=1, started_ns=7, limits=[])
        world.slurm.list["1"] = SlurmJob("1", NAME, "RUNNING", node="n1", started=5)
        await until(lambda: isinstance(executor._look(ATTEMPT), Running))
        await executor.cancel(ATTEMPT, force=False)
        await until(lambda: world.slurm.asked == [("terminate", "1")])
        await executor.cancel(ATTEMPT, force=True)
        await until(lambda: world.slurm.asked == [("terminate", "1"), ("kill", "1"), ("cancel", "1")])
        assert (await ended(executor)).end.reason is Reason.STOPPED

    world.play(scene)


def test_all_jobs_are_asked_about_at_once_and_not_at_all_when_there_are_none(tmp_path: Path) -> None:
    world = World(tmp_path)

    async def scene(executor: SlurmExecutor) -> None:
        await until(lambda: world.slurm.queries == 1)
        await asyncio.sleep(0.2)  # ten times the longest pause: nothing asks, of which no event tells
        assert world.slurm.queries == 1

    world.play(scene)


def test_a_double_that_has_a_node_is_not_taken_away_before_it_is_claimed(tmp_path: Path) -> None:
    """The first submission, whose answer never came, is the one that runs: its end is the attempt's."""
    world = World(tmp_path)

    async def scene(executor: SlurmExecutor) -> None:
        await executor.submit(request())
        await until(lambda: "1" in world.slurm.list)
        world.slurm.list["2"] = SlurmJob("2", NAME, "RUNNING", node="n1", started=5)
        await until(lambda: ("cancel", "1") in world.slurm.asked)
        assert ("cancel", "2") not in world.slurm.asked
        world.tell("claim", node="n1", slurm_job_id="2")
        world.tell("state.json", version=1, started_ns=7, limits=[])
        await until(lambda: isinstance(executor._look(ATTEMPT), Running))
        assert executor._tracked[ATTEMPT].job_id == "2"

    world.play(scene)
