"""How each crash point is walked: what has to happen for a process to come by, and what may be lost by its death there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc

from joblet.api.v1 import job_pb2, resource_pb2, resource_pb2_grpc
from joblet.crash_points import VARIABLE
from tests.faults.asking import Caller
from tests.faults.ledger import Asked, Audit, Journal, runs_on_record
from tests.faults.workload import JOURNAL_VOLUME, SCRIPT, Kind, SoakJob, Way
from tests.integration.host import FINAL, Host, cgroup_directories, eventually, job_host
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


def run_armed(ground: Ground, point: str, *, pause: float = 0, **more: object) -> list[Asked]:
    """pause: seconds that its command takes at least."""
    job = replace(ground.job(**more), pause=pause)  # type: ignore[arg-type]
    ground.arm(point)
    ground.caller.apply(job.manifest())
    ground.died_at(point)
    ground.reaches(job.name, *FINAL)
    return [Asked(job, 1)]


def run_seen(ground: Ground, point: str) -> list[Asked]:
    """For so long that the daemon sees it run, and not only its end."""
    return run_armed(ground, point, pause=3)


def run_on_disk(ground: Ground, point: str) -> list[Asked]:
    """With a workspace in an image on a loop device."""
    return run_armed(ground, point, limits={"memory": "64Mi", "disk": "8Mi", "io": {"write": "50Mi"}})


def run_with_secret(ground: Ground, point: str) -> list[Asked]:
    words = '[ "$(cat /run/secrets/token/value)" = open-sesame ]'
    return run_armed(ground, point, script=f"{words}\n{SCRIPT}", secrets=[{"name": "token"}])


def two_runs(ground: Ground, point: str) -> list[Asked]:
    """The launcher makes its next spare after the first."""
    asked = run_armed(ground, point)
    job = ground.job()
    ground.caller.apply(job.manifest())
    ground.reaches(job.name, *FINAL)
    return [*asked, Asked(job, 1)]


def stop(ground: Ground, point: str) -> list[Asked]:
    job = ground.job(kind=Kind.STOPPED)
    ground.caller.apply(job.manifest())
    ground.reaches(job.name, "RUNNING")
    ground.arm(point)
    stopped = ground.caller.stop(job.name)
    ground.died_at(point)
    ground.reaches(job.name, "STOPPED")
    return [Asked(job, 1, stopped=stopped)]


def delete(ground: Ground, point: str) -> list[Asked]:
    job = ground.job(kind=Kind.DELETED)
    ground.caller.apply(job.manifest())
    ground.reaches(job.name, "RUNNING")
    ground.arm(point)
    ground.caller.delete(job.name)
    ground.died_at(point)
    eventually(lambda: not ground.caller.all_jobs(), within=WITHIN_SECONDS, what="the job to be gone")
    return [Asked(job, 1, deleted=True)]


def drop(ground: Ground, point: str) -> list[Asked]:
    job = ground.job(Way.SPOOL)
    ground.arm(point)
    (ground.host.spool / f"{job.name}.yml").write_text(job.manifest())
    ground.died_at(point)
    ground.reaches(job.name, *FINAL)
    return [Asked(job, 1)]


def take_file_away(ground: Ground, point: str) -> list[Asked]:
    job = ground.job(Way.SPOOL, Kind.DELETED)
    file = ground.host.spool / f"{job.name}.yml"
    file.write_text(job.manifest())
    ground.reaches(job.name, "RUNNING")
    ground.arm(point)
    file.unlink()
    ground.died_at(point)
    eventually(lambda: not ground.caller.all_jobs(), within=WITHIN_SECONDS, what="the job to be gone")
    return [Asked(job, 1, deleted=True)]


def start(ground: Ground, point: str) -> list[Asked]:
    """While a job runs on."""
    job = ground.job(kind=Kind.STOPPED)
    ground.caller.apply(job.manifest())
    ground.reaches(job.name, "RUNNING")
    ground.arm(point)
    assert ground.host.daemon is not None
    ground.host.daemon.kill()
    ground.died_at(point)
    assert ground.phase(job.name) == "RUNNING"
    stopped = ground.caller.stop(job.name)
    ground.reaches(job.name, "STOPPED")
    return [Asked(job, 1, stopped=stopped)]


def tick(ground: Ground, point: str) -> list[Asked]:
    """Of a job that runs once by its schedule, soon."""
    soon = datetime.now(UTC) + timedelta(seconds=3)
    job = ground.job(schedule={"at": soon.strftime("%Y-%m-%dT%H:%M:%SZ")})
    ground.arm(point)
    ground.caller.apply(job.manifest())
    ground.died_at(point)
    ground.reaches(job.name, *FINAL)
    return [Asked(job, 1)]


def save_status(ground: Ground, point: str) -> list[Asked]:
    """Of a job that does nothing: its status file alone is written."""
    job = ground.job(suspend=True)
    ground.arm(point)
    ground.caller.apply(job.manifest())
    ground.died_at(point)
    status = ground.host.spool / "status" / f"{job.name}.yml"
    eventually(status.exists, within=WITHIN_SECONDS, what="its status file")
    ground.caller.delete(job.name)
    eventually(lambda: not status.exists(), within=WITHIN_SECONDS, what="its status file to be gone")
    assert list(status.parent.iterdir()) == []
    return []


def tell(ground: Ground, point: str) -> list[Asked]:
    """By a webhook: what was sent, and not yet taken off the record, is sent again, and is known by its id."""
    before = len(ground.receiver.received)
    asked = run_armed(ground, point, notify=[{"on": ["Succeeded"], "webhook": f"{ground.receiver.url}/walk"}])
    sent = ground.receiver.wait_for(before + 2, seconds=WITHIN_SECONDS)[before:]
    assert len({one.headers["webhook-id"] for one in sent}) == 1
    return asked


def tell_by_command(ground: Ground, point: str) -> list[Asked]:
    """By a job of its own, which runs once."""
    asked = run_armed(ground, point, notify=[{"on": ["Succeeded"], "command": ["true"]}])
    name = asked[0].job.name
    eventually(
        lambda: [job.name for job in ground.caller.all_jobs()] == [name], within=WITHIN_SECONDS, what="its hook's end"
    )
    hooks = [
        run
        for name, runs in runs_on_record(ground.host, "hook-").items()
        for run in runs
        if run.id and name.startswith(f"hook-{ground.run_id(asked[0].job.name)}")
    ]
    assert [len(run.attempts) for run in hooks] == [1]
    return asked


def relieve(ground: Ground, point: str) -> list[Asked]:
    """A service whose new run is ready: the old one ends, and neither of them is started twice."""
    probe = """{{command: ["true"], interval: 200ms, timeout: 20s}}"""
    text = f"""{{{{apiVersion: joblet/v1, kind: Job, metadata: {{{{name: walk-service}}}}, spec: {{{{command: [sleep, '{{0}}'],
        restart: Always, stop: {{{{grace: 0s}}}}, probe: {probe}, update: {{{{maxUnavailable: 0}}}}}}}}}}}}"""
    ground.caller.apply(text.format(600))
    ground.reaches("walk-service", "RUNNING")
    ground.arm(point)
    ground.caller.apply(text.format(601))
    ground.died_at(point)

    def phases() -> list[str]:
        request = job_pb2.GetRequest(ref="walk-service", history=True)
        job: job_pb2.Job = ground.caller.call(ground.caller.jobs.Get, request)
        assert all(len(run.attempts) <= 1 for run in job.runs)
        return [run.phase for run in job.runs]

    eventually(lambda: phases() == ["RUNNING", "STOPPED"], within=WITHIN_SECONDS, what="the new run alone")
    return []


def work_through(ground: Ground, point: str) -> list[Asked]:
    """A workflow: each of its steps runs once, whenever the daemon dies."""
    ground.number += 1
    name = f"flow-{ground.number}"
    text = """{apiVersion: joblet/v1, kind: Workflow, metadata: {name: NAME}, spec: {steps: [
        {name: a, job: {script: "echo 12 >$JOBLET_OUTPUTS/rows", outputs: [rows]}},
        {name: b, inputs: [{env: ROWS, step: a, output: rows}], job: {script: "test $ROWS = 12"}}]}}"""
    ground.arm(point)
    ground.caller.apply(text.replace("NAME", name))
    ground.died_at(point)
    resources = resource_pb2_grpc.ResourceServiceStub(ground.caller.channel)
    asked = resource_pb2.GetResourceRequest(kind="Workflow", name=name)

    def phase() -> str:
        workflow: resource_pb2.Resource = ground.caller.call(resources.GetResource, asked)
        return str(workflow.status.get("phase"))

    eventually(lambda: phase() == "Succeeded", within=WITHIN_SECONDS, what="the workflow's end")
    runs = runs_on_record(ground.host, f"{name}-")
    attempts = {job: [len(run.attempts) for run in found] for job, found in runs.items()}
    assert attempts == {f"{name}-a": [1], f"{name}-b": [1]}
    gone = resource_pb2.DeleteResourceRequest(kind="Workflow", name=name)
    ground.caller.call(resources.DeleteResource, gone)
    eventually(lambda: not ground.caller.all_jobs(), within=WITHIN_SECONDS, what="the jobs of its steps to be gone")
    return []


CORE: dict[str, Walk] = {
    "daemon.apply-accepted": Walk(run_armed),
    "daemon.committing": Walk(run_armed),
    "daemon.committed": Walk(run_armed),
    "daemon.apply-stored": Walk(run_armed),
    "daemon.intent-stored": Walk(run_armed),
    "daemon.attempt-directory-made": Walk(run_armed),
    "daemon.attempt-noted": Walk(run_on_disk),
    "daemon.workspace-made": Walk(run_on_disk),
    "daemon.resources-attached": Walk(run_armed),
    "daemon.launched": Walk(run_armed),
    "daemon.start-stored": Walk(run_seen),
    "daemon.end-seen": Walk(run_armed),
    "daemon.outcome-stored": Walk(run_armed),
    "daemon.resources-detached": Walk(run_on_disk),
    "daemon.cgroup-removed": Walk(run_on_disk),
    "daemon.workspace-removed": Walk(run_on_disk),
    "daemon.cleaned-up": Walk(run_armed),
    "daemon.leftovers-freed": Walk(start),
    "daemon.stop-stored": Walk(stop),
    "daemon.tick-due": Walk(tick),
    "daemon.tick-stored": Walk(tick),
    "daemon.delete-stored": Walk(delete),
    "daemon.spool-looked-at": Walk(drop),
    "daemon.spool-file-applied": Walk(drop),
    "daemon.source-job-deleted": Walk(take_file_away),
    "daemon.notification-sent": Walk(tell),
    "daemon.hook-job-declared": Walk(tell_by_command),
    "daemon.hook-job-told": Walk(tell_by_command),
    "daemon.relieved-stored": Walk(relieve),
    "daemon.workflow-run-stored": Walk(work_through),
    "daemon.step-declared": Walk(work_through),
    "daemon.workflow-end-stored": Walk(work_through),
    "daemon.status-file-written": Walk(save_status),
    "file.written": Walk(save_status),
    "launcher.attempt-locked": Walk(run_armed),
    "launcher.work-given": Walk(run_armed),
    "launcher.cgroups-made": Walk(run_armed),
    "launcher.init-let-go": Walk(run_armed),
    "launcher.init-cloned": Walk(two_runs),
    "init.prepared": Walk(two_runs),
    "init.work-taken": Walk(run_armed),
    "init.command-cloned": Walk(run_armed),
    "init.volumes-mounted": Walk(run_armed),
    "init.secrets-placed": Walk(run_with_secret),
    "init.root-stands": Walk(run_on_disk),
    "init.exec-announced": Walk(run_armed, loses=True),
    "init.command-released": Walk(run_armed, loses=True),
    "init.exec-noted": Walk(run_armed, loses=True),
    "init.command-ended": Walk(run_on_disk, loses=True),
    "init.exit-recorded": Walk(run_on_disk),
    "init.end-told": Walk(run_armed),
}


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
