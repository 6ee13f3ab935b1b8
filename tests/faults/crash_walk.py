"""How each crash point is walked: what has to happen for a process to come by, and what may be lost by its death there."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import grpc

from joblet.api.v1 import job_pb2, resource_pb2, resource_pb2_grpc
from tests.faults.crash_ground import WITHIN_SECONDS, Ground, Walk
from tests.faults.ledger import Asked, runs_on_record
from tests.faults.workload import SCRIPT, Kind, Way
from tests.integration.host import FINAL, eventually
from tests.timing import PATIENCE


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
    soon = datetime.now(UTC) + timedelta(seconds=6)
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
    sent = ground.receiver.wait_for(before + 2, seconds=WITHIN_SECONDS * PATIENCE)[before:]
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


def stop_flow(ground: Ground, point: str) -> list[Asked]:
    """A workflow that is stopped: its step ends, nothing more of it begins, and that is on record."""
    ground.number += 1
    name = f"flow-{ground.number}"
    text = """{apiVersion: joblet/v1, kind: Workflow, metadata: {name: NAME}, spec: {steps: [
        {name: a, job: {command: [sleep, "600"], stop: {grace: 0s}}},
        {name: b, needs: [{step: a}], job: {command: ["true"]}}]}}"""
    ground.caller.apply(text.replace("NAME", name))
    ground.reaches(f"{name}-a", "RUNNING")
    resources = resource_pb2_grpc.ResourceServiceStub(ground.caller.channel)
    ground.arm(point)
    with suppress(grpc.RpcError):  # who stops it may be left without an answer
        resources.StopWorkflow(resource_pb2.StopWorkflowRequest(name=name), timeout=WITHIN_SECONDS * PATIENCE)
    ground.died_at(point)
    resources = resource_pb2_grpc.ResourceServiceStub(ground.caller.channel)
    asked = resource_pb2.GetResourceRequest(kind="Workflow", name=name)

    def phase() -> str:
        workflow: resource_pb2.Resource = ground.caller.call(resources.GetResource, asked)
        return str(workflow.status.get("phase"))

    eventually(lambda: phase() == "Stopped", within=WITHIN_SECONDS, what="the workflow to have stopped")
    assert {job: len(found) for job, found in runs_on_record(ground.host, f"{name}-").items()} == {f"{name}-a": 1}
    gone = resource_pb2.DeleteResourceRequest(kind="Workflow", name=name)
    ground.caller.call(resources.DeleteResource, gone)
    eventually(lambda: not ground.caller.all_jobs(), within=WITHIN_SECONDS, what="the jobs of its steps to be gone")
    return []


ARRAY = """{apiVersion: joblet/v1, kind: Job, metadata: {name: NAME}, spec: {stop: {grace: 0s},
    array: {to: 5, parallel: 4, success: {atLeast: 4}},
    script: "case $JOBLET_ARRAY_INDEX in SLOW) sleep 600;; FAIL) exit 3;; esac"}}"""


def run_array(ground: Ground, point: str) -> list[Asked]:
    """Four indexes are enough, and two of six never end: whenever the daemon dies, each that is needed runs once."""
    name = declare_array(ground, point, slow="4|5", fail="-")
    run = array_of(ground, name, "COMPLETED")
    assert (run.array.succeeded, run.array.skipped) == (4, 2)
    launches = launches_of(ground, name)
    assert all(launches.get(index) == [1] for index in range(4)) and all(found == [1] for found in launches.values())
    return take_array_away(ground, name)


def run_array_again(ground: Ground, point: str) -> list[Asked]:
    """Three of six fail, and run again: in a run that is there as a whole, or not at all."""
    name = declare_array(ground, "", slow="-", fail="1|3|5")
    first = array_of(ground, name, "FAILED").id
    ground.arm(point)
    with suppress(grpc.RpcError):  # no answer; asked again it might be over already, and would run a third time
        ground.caller.jobs.Retry(job_pb2.RetryRequest(ref=name), timeout=WITHIN_SECONDS * PATIENCE)
    ground.died_at(point)
    ground.reaches(name, *FINAL)
    run = array_of(ground, name, "FAILED")
    assert run.id != first and (run.array.succeeded, run.array.failed) == (3, 3)
    assert launches_of(ground, name) == {index: [1, 1] if index % 2 else [1] for index in range(6)}
    return take_array_away(ground, name)


def declare_array(ground: Ground, point: str, *, slow: str, fail: str) -> str:
    ground.number += 1
    name = f"array-{ground.number}"
    if point:
        ground.arm(point)
    ground.caller.apply(ARRAY.replace("NAME", name).replace("SLOW", slow).replace("FAIL", fail))
    if point:
        ground.died_at(point)
    ground.reaches(name, *FINAL)
    return name


def array_of(ground: Ground, name: str, phase: str) -> job_pb2.Run:
    job: job_pb2.Job = ground.caller.call(ground.caller.jobs.Get, job_pb2.GetRequest(ref=name))
    assert job.runs[0].phase == phase, job.runs[0]
    return job.runs[0]


def launches_of(ground: Ground, name: str) -> dict[int, list[int]]:
    """By index: how many attempts each of its runs had."""
    found: dict[int, list[int]] = {}
    for index_name, runs in runs_on_record(ground.host, f"{name}.").items():
        index = int(index_name.rpartition(".")[2])
        found.setdefault(index, []).extend(len(run.attempts) for run in runs if run.attempts)
    return found


def take_array_away(ground: Ground, name: str) -> list[Asked]:
    ground.caller.delete(name)
    eventually(lambda: not ground.caller.all_jobs(), within=WITHIN_SECONDS, what="the array to be gone")
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
    "daemon.workflow-stop-stored": Walk(stop_flow),
    "daemon.workflow-stopped": Walk(stop_flow),
    "daemon.indexes-stored": Walk(run_array),
    "daemon.indexes-stopped": Walk(run_array),
    "daemon.array-retry-stored": Walk(run_array_again),
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
    "init.record-written": Walk(run_armed, loses=True),
    "init.exit-recorded": Walk(run_on_disk),
    "init.end-told": Walk(run_armed),
}
