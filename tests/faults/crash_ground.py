"""The ground on which processes die at crash points: a host whose daemon is kept alive, and what has to hold there afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from joblet.api.v1 import job_pb2
from joblet.crash_points import VARIABLE
from tests.faults.asking import Caller
from tests.faults.ledger import Asked, Audit, Journal, runs_on_record
from tests.faults.workload import JOURNAL_VOLUME, Kind, SoakJob, Way
from tests.integration.host import Host, cgroup_directories, eventually, job_host
from tests.integration.network_stage import Stage, stage
from tests.strictness import IN_GUEST
from tests.unit.notifying.receiver import Receiver, listening

WITHIN_SECONDS = 60.0


class Keeper(threading.Thread):
    """Starts the daemon again whenever it has died, as an init system does."""

    def __init__(self, host: Host) -> None:
        super().__init__(name="keeper")
        self.host = host
        self.ending = threading.Event()
        self.deaths = 0

    def run(self) -> None:
        while not self.ending.wait(0.02):
            daemon = self.host.daemon
            if daemon is None or daemon.poll() is not None:
                self.deaths += 1
                with suppress(AssertionError):  # it died over its start
                    self.host.start(within=WITHIN_SECONDS)

    def end(self) -> None:
        self.ending.set()
        self.join()


@dataclass
class Ground:
    """A host whose processes can be armed, with somebody who keeps its daemon alive."""

    host: Host
    points: Path
    keeper: Keeper
    caller: Caller
    receiver: Receiver  # of webhooks, which the configuration allows
    stage: Stage | None = None  # the network namespace the daemon lives in, where there are networks at all
    number: int = 0
    journal: Journal = field(default_factory=Journal)

    def arm(self, point: str) -> None:
        (self.points / point).touch()

    def is_armed(self, point: str) -> bool:
        return (self.points / point).exists()

    def died_at(self, point: str) -> None:
        """Wait until somebody has come by, and the daemon answers again."""
        eventually(lambda: not self.is_armed(point), within=WITHIN_SECONDS, what=f"death at {point}")
        self.caller.all_jobs()

    def job(self, way: Way = Way.GRPC, kind: Kind = Kind.SHORT, **more: object) -> SoakJob:
        self.number += 1
        return SoakJob(f"walk-{self.number}", way, kind, lines=20, extra=dict(more))

    def phase(self, name: str) -> str:
        with suppress(grpc.RpcError):
            job = self.caller.call(self.caller.jobs.Get, job_pb2.GetRequest(ref=name))
            return job.runs[0].phase if job.runs else ""
        return ""

    def run_id(self, name: str) -> str:
        """The id of a job's latest run."""
        job: job_pb2.Job = self.caller.call(self.caller.jobs.Get, job_pb2.GetRequest(ref=name))
        return job.runs[0].id

    def reaches(self, name: str, *phases: str) -> None:
        eventually(lambda: self.phase(name) in phases, within=WITHIN_SECONDS, what=f"{name} to be one of {phases}")


@dataclass(frozen=True)
class Walk:
    """act: brings a process to the point; returns what was asked for. loses: the attempt's end is not known then."""

    act: Callable[[Ground, str], list[Asked]]
    loses: bool = False


@contextmanager
def made_ground(points: Path) -> Iterator[Ground]:
    """At the end nothing of it is left."""
    with ExitStack() as stack:
        place = None if IN_GUEST else stack.enter_context(stage())  # its networks do not touch those of the machine
        within = () if place is None else place.within
        receiver = stack.enter_context(
            listening() if place is None else listening(within=lambda make: place.host.call(make))
        )
        host = stack.enter_context(
            job_host(
                environment={VARIABLE: str(points)},
                within=within,
                configure=lambda config: config.update(hooks={"allowedWebhooks": [receiver.url]}),
            )
        )
        keeper = Keeper(host)
        caller = Caller(host)
        caller.apply(JOURNAL_VOLUME)
        journal = host.root / "run/volumes/journal"
        eventually(journal.is_dir, what="the journal's volume")
        keeper.start()
        try:
            yield Ground(host, points, keeper, caller, receiver, place)
        finally:
            keeper.end()
            if host.daemon is None or host.daemon.poll() is not None:
                host.start()
            for name in ("journal", "shelf"):
                caller.delete(f"volume/{name}")
            eventually(lambda: not list(journal.parent.iterdir()), what="the volume to be gone")
            caller.channel.close()


def take(ground: Ground, point: str, walk: Walk) -> None:
    """Walk the point, and see what became of it."""
    asked = walk.act(ground, point)
    check(ground, asked, loses=walk.loses)


def check(ground: Ground, asked: list[Asked], *, loses: bool) -> None:
    """What DESIGN section 3 promises, from outside; then take all away, and look for what is left."""
    prefix = "walk-"
    runs = {
        name: rows for name, rows in runs_on_record(ground.host, prefix).items() if name in {a.job.name for a in asked}
    }
    attempts = [attempt for rows in runs.values() for run in rows for attempt in run.attempts]
    victims = {attempt.id for attempt in attempts} if loses else set()
    audit = Audit(ground.host, Journal.take(ground.host), victims)
    for one in asked:
        audit.wrong += audit.job(one, runs)
    for (run, number), count in audit.journal.begins.items():
        if count > 1:
            audit.wrong.append(f"run {run} attempt {number} was launched {count} times")
    assert not audit.wrong, "\n".join([*audit.wrong, ground.host.log_tail()])
    assert [attempt.number for attempt in attempts] == [1] * len(asked), attempts
    if loses:
        assert [attempt.lost for attempt in attempts] == [True], attempts
    clear(ground)


def clear(ground: Ground) -> None:
    for file in ground.host.spool.glob("*.yml"):
        file.unlink()
    for job in ground.caller.all_jobs():
        if job.source.startswith("grpc:"):
            ground.caller.delete(job.name)

    def left() -> list[str]:
        found = [job.name for job in ground.caller.all_jobs()]
        places = [ground.host.root / "state" / name for name in ("attempts", "work")] + [ground.host.spool / "status"]
        found += [str(path) for place in places for path in place.iterdir()]
        found += [str(path) for base in cgroup_directories(ground.host.cgroup_base) for path in base.glob("job-*")]
        found += [str(path) for path in ground.points.iterdir()]
        return found

    eventually(lambda: not left(), within=WITHIN_SECONDS, what=f"nothing left: {left()}")
