"""How the crash points of what surrounds jobs are walked: volumes, networks, secrets, uploads, git sources, reloads, history."""

from __future__ import annotations

import json
import signal
from contextlib import suppress

import grpc

from joblet.api.v1 import job_pb2, resource_pb2, resource_pb2_grpc
from jobletd.executor.local.volume_image import image_bytes
from rnx import exit_codes
from tests.faults.crash_ground import WITHIN_SECONDS, Ground, Walk
from tests.faults.crash_walk import run_armed, run_with_secret
from tests.faults.ledger import Asked
from tests.faults.workload import SCRIPT, Kind, SoakJob, Way
from tests.git_repository import Repository
from tests.integration.host import FINAL, Ended, eventually
from tests.integration.small_root import make_root, pack

MIB = 1 << 20


def stub(ground: Ground) -> resource_pb2_grpc.ResourceServiceStub:
    return resource_pb2_grpc.ResourceServiceStub(ground.caller.channel)


def resource(ground: Ground, kind: str, name: str) -> resource_pb2.Resource | None:
    request = resource_pb2.GetResourceRequest(kind=kind, name=name)
    return ground.caller.settled(stub(ground).GetResource, request, grpc.StatusCode.NOT_FOUND)


def ready(ground: Ground, kind: str, name: str) -> None:
    def look() -> bool:
        found = resource(ground, kind, name)
        return found is not None and any((one.type, one.status) == ("Ready", "True") for one in found.conditions)

    eventually(look, within=WITHIN_SECONDS, what=f"{kind} {name} to be ready")


def gone(ground: Ground, kind: str, name: str) -> None:
    eventually(lambda: resource(ground, kind, name) is None, within=WITHIN_SECONDS, what=f"{kind} {name} to be gone")


def declare(ground: Ground, kind: str, name: str, spec: dict[str, object]) -> None:
    manifest = {"apiVersion": "joblet/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    ground.caller.apply(json.dumps(manifest))


def ended(ground: Ground, job: SoakJob) -> Asked:
    ground.caller.apply(job.manifest())
    ground.reaches(job.name, *FINAL)
    return Asked(job, 1)


def using(ground: Ground, words: str, **more: object) -> SoakJob:
    """A job whose exit code is 0 only if these words of shell succeed."""
    return ground.job(script=f"{words}\n{SCRIPT}", **more)  # type: ignore[arg-type]


# --- volumes ----------------------------------------------------------------------------------------------------------


def on_volume(ground: Ground, words: str) -> SoakJob:
    return using(ground, words, volumes=[{"name": "walked", "path": "/walked"}])


def make_volume(ground: Ground, point: str) -> list[Asked]:
    kind = "memory" if "memory" in point else "filesystem"
    ground.arm(point)
    declare(ground, "Volume", "walked", {"size": "8Mi", "type": kind})
    ground.died_at(point)
    ready(ground, "Volume", "walked")
    asked = ended(ground, on_volume(ground, "echo kept >/walked/file"))
    remove(ground, "Volume")
    nothing_of_the_volume(ground)
    return [asked]


def grow_volume(ground: Ground, point: str) -> list[Asked]:
    kind = "memory" if "memory" in point else "filesystem"
    declare(ground, "Volume", "walked", {"size": "8Mi", "type": kind})
    ready(ground, "Volume", "walked")
    first = ended(ground, on_volume(ground, "echo kept >/walked/file"))
    ground.arm(point)
    declare(ground, "Volume", "walked", {"size": "24Mi", "type": kind})
    ground.died_at(point)
    ready(ground, "Volume", "walked")
    words = '[ "$(cat /walked/file)" = kept ]; head -c 20000000 /dev/zero >/walked/more'
    second = ended(ground, on_volume(ground, words))
    if kind == "filesystem":
        image = ground.host.root / "state/volumes/walked/volume.img"
        assert image.stat().st_size == image_bytes(24 * MIB)
    remove(ground, "Volume")
    return [first, second]


def remove_volume(ground: Ground, point: str) -> list[Asked]:
    declare(ground, "Volume", "walked", {"size": "8Mi"})
    ready(ground, "Volume", "walked")
    asked = ended(ground, on_volume(ground, "echo kept >/walked/file"))
    ground.arm(point)
    remove(ground, "Volume")
    ground.died_at(point)
    nothing_of_the_volume(ground)
    return [asked]


def remove(ground: Ground, kind: str) -> None:
    """The job that used it may hold it for an instant yet."""

    def accepted() -> bool:
        with suppress(grpc.RpcError):
            ground.caller.delete(f"{kind.lower()}/walked")
            return True
        return False

    eventually(accepted, within=WITHIN_SECONDS, what=f"the removal of {kind} walked to be taken")
    gone(ground, kind, "walked")


def nothing_of_the_volume(ground: Ground) -> None:
    places = [ground.host.root / "state/volumes", ground.host.root / "run/volumes"]
    assert [path for place in places for path in place.iterdir() if "walked" in path.name] == []


# --- networks ---------------------------------------------------------------------------------------------------------


def use_network(ground: Ground, point: str) -> list[Asked]:
    """Declare it, have a job on it, take it away; who comes by at the point, in whichever of these, dies."""
    assert ground.stage is not None
    before = ground.stage.interfaces()
    ground.arm(point)
    declare(ground, "Network", "walked", {"cidr": "10.77.8.0/24"})
    ready(ground, "Network", "walked")
    words = "grep -q 'walk-.*walked' /etc/hosts"
    asked = ended(ground, using(ground, words, isolation={"network": "walked"}))
    remove(ground, "Network")
    ground.died_at(point)
    gone(ground, "Network", "walked")
    eventually(
        lambda: ground.stage is not None and ground.stage.interfaces() <= before,
        within=WITHIN_SECONDS,
        what="its interfaces to be gone",
    )
    return [asked]


# --- secrets, uploads, images -----------------------------------------------------------------------------------------


def renew_secret(ground: Ground, point: str) -> list[Asked]:
    """A new value, acknowledged after the death, is the one that jobs get."""
    declare(ground, "Secret", "walked", {"data": {"value": "old"}})
    ground.arm(point.partition(" ")[0])
    declare(ground, "Secret", "walked", {"data": {"value": f"new{ground.number}"}})
    ground.died_at(point.partition(" ")[0])
    words = f'[ "$(cat /run/secrets/walked/value)" = new{ground.number} ]'
    asked = ended(ground, using(ground, words, secrets=[{"name": "walked"}]))
    remove(ground, "Secret")
    return [asked]


def upload(ground: Ground, point: str) -> list[Asked]:
    """What was not acknowledged is said again; then the job has its file, whole."""
    job = ground.job(Way.RNX)
    file = ground.host.root / "uploaded"
    file.write_text(f"content of {job.name}\n")
    ground.arm(point)
    flags = [f"--upload={file}", *job.flags()[:-1], f'[ "$(cat uploaded)" = "content of {job.name}" ]\n{SCRIPT}']
    assert ground.host.rnx("run", *flags).status != 0
    ground.died_at(point)

    def again() -> Ended | None:
        """Once the next daemon listens, on a port of its own."""
        told = ground.host.rnx("run", *flags)
        return None if told.status == exit_codes.UNREACHABLE else told

    told = eventually(again, within=WITHIN_SECONDS, what="the next daemon's answer")
    assert told is not None and told.status == 0, told
    ground.reaches(job.name, *FINAL)
    assert not list((ground.host.root / "state").rglob("incoming/*"))
    return [Asked(job, 1)]


def unpack_root(ground: Ground, point: str) -> list[Asked]:
    images = ground.host.root / "images"
    make_root(images / "small", ("flock", "seq", "sleep"))
    pack(images / "small", images / "small.tar.gz")
    asked = run_armed(ground, point, isolation={"rootfs": f"{images}/small.tar.gz"})
    assert not list((ground.host.root / "state/rootfs").glob(".*"))
    return asked


# --- git, configuration, history --------------------------------------------------------------------------------------


def follow(ground: Ground, point: str) -> list[Asked]:
    job = ground.job()
    repository = Repository(ground.host.root / f"repository-{job.name}")
    commit = repository.commit({"job.yml": job.manifest()})
    ground.arm(point)
    declare(ground, "GitSource", "walked", {"url": repository.url, "interval": "1h", "timeout": "20s"})
    ground.died_at(point)
    ready(ground, "GitSource", "walked")
    ground.reaches(job.name, *FINAL)
    source = ground.caller.call(ground.caller.jobs.Get, job_pb2.GetRequest(ref=job.name)).source
    assert source == f"git:walked@{commit[:12]}:job.yml"
    kept = json.loads((ground.host.root / "state/git/walked.json").read_text())
    assert kept["revision"] == commit
    remove(ground, "GitSource")
    ground.caller.delete(job.name)
    return [Asked(job, 1)]


def hang_up(ground: Ground, point: str) -> list[Asked]:
    """A changed configuration is taken over while a job runs on."""
    job = ground.job(kind=Kind.STOPPED)
    ground.caller.apply(job.manifest())
    ground.reaches(job.name, "RUNNING")
    ground.host.configure(lambda config: config["joblet"].update(maxConcurrentJobs=90 + ground.number))
    ground.arm(point)
    assert ground.host.daemon is not None
    ground.host.daemon.send_signal(signal.SIGHUP)
    ground.died_at(point)
    assert ground.phase(job.name) == "RUNNING"
    stopped = ground.caller.stop(job.name)
    ground.reaches(job.name, "STOPPED")
    return [Asked(job, 1, stopped=stopped)]


def clean_history(ground: Ground, point: str) -> list[Asked]:
    """A sweep, which a daemon begins when it starts, goes on where it died: the old run and its output are gone, once."""
    job = ground.job(history={"keep": 1})
    ended(ground, job)
    first = ground.caller.call(ground.caller.jobs.Get, job_pb2.GetRequest(ref=job.name)).runs[0].id
    ground.caller.call(ground.caller.jobs.Run, job_pb2.RunRequest(name=job.name))
    latest = eventually(lambda: _latest_other(ground, job.name, first), within=WITHIN_SECONDS, what="another run")
    ground.arm(point)
    assert ground.host.daemon is not None
    ground.host.daemon.kill()
    ground.died_at(point)
    logs = ground.host.root / "log" / job.name
    eventually(
        lambda: [path.name for path in logs.glob("*.log")] == [f"{latest}-1.log"],
        within=WITHIN_SECONDS,
        what="the old output to go",
    )
    request = job_pb2.GetRequest(ref=job.name, history=True)

    def kept() -> list[str]:
        return [one.id for one in ground.caller.call(ground.caller.jobs.Get, request).runs]

    eventually(lambda: kept() == [latest], within=WITHIN_SECONDS, what="the old run to go")
    return [Asked(job, 1)]


def _latest_other(ground: Ground, name: str, first: str) -> str:
    """The latest run once it is over and another than ``first``."""
    run = ground.caller.call(ground.caller.jobs.Get, job_pb2.GetRequest(ref=name)).runs[0]
    return run.id if run.id != first and run.phase in FINAL else ""


NETWORKS: dict[str, Walk] = {
    "network.rules-loaded": Walk(use_network),
    "network.bridge-made": Walk(use_network),
    "network.cable-plugged": Walk(use_network),
    "network.attached": Walk(use_network),
    "network.detached": Walk(use_network),
    "network.bridge-removed": Walk(use_network),
}
SURROUNDINGS: dict[str, Walk] = {
    "volume.image-made": Walk(make_volume),
    "volume.formatted": Walk(make_volume),
    "volume.mounted": Walk(make_volume),
    "volume.put-in-place": Walk(make_volume),
    "volume.memory-mounted": Walk(make_volume),
    "volume.lent": Walk(run_armed),
    "volume.image-enlarged": Walk(grow_volume),
    "volume.grown": Walk(grow_volume),
    "volume.memory-grown": Walk(grow_volume),
    "daemon.resource-delete-stored": Walk(remove_volume),
    "volume.set-aside": Walk(remove_volume),
    "volume.removed": Walk(remove_volume),
    "secret.sealed": Walk(renew_secret),
    "daemon.apply-stored (a secret)": Walk(renew_secret),
    "secret.opened": Walk(run_with_secret),
    "upload.stored": Walk(upload),
    "rootfs.unpacked": Walk(unpack_root),
    "git.fetched": Walk(follow),
    "git.applied": Walk(follow),
    "git.commit-kept": Walk(follow),
    "git.revision-stored": Walk(follow),
    "reload.read": Walk(hang_up),
    "reload.in-force": Walk(hang_up),
    "retention.output-removed": Walk(clean_history),
    "retention.runs-removed": Walk(clean_history),
}
