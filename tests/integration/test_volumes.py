"""Volumes: data that outlives jobs, and what keeps them from the host and from each other."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest

from joblet.api.v1 import job_pb2, resource_pb2, resource_pb2_grpc
from jobletd.executor.local.volume_image import rounded
from tests.integration.host import Host, eventually, job_host
from tests.integration.test_limits import seconds_of_dd
from tests.timing import PATIENCE

CAP_SYS_RESOURCE = 24  # <linux/capability.h>
# What the client says is the same on any kernel, and in the guest each of its calls takes seconds.
CLIENTS_WORDS = pytest.mark.native_only(reason="the client's words, which no kernel and no hierarchy changes")


@pytest.fixture(scope="module")
def shared_host() -> Iterator[Host]:
    with volume_host() as host:
        yield host


@pytest.fixture
def host(shared_host: Host) -> Iterator[Host]:
    """The one host, without any volume or job of an earlier test."""
    if shared_host.daemon is None:
        shared_host.start()
    yield shared_host
    if shared_host.daemon is None:
        shared_host.start()
    clear(shared_host)


@contextmanager
def volume_host() -> Iterator[Host]:
    with job_host() as host:
        try:
            yield host
        finally:
            for mounted in (host.root / "run/volumes").iterdir():  # of a test that failed
                if mounted.is_mount():
                    subprocess.run(["umount", "-l", mounted], check=True, timeout=60 * PATIENCE)


def clear(host: Host) -> None:
    """By the API: a client's start takes longer than most tests here."""
    for job in host.jobs.List(list_request(), timeout=30 * PATIENCE).jobs:
        with suppress(grpc.RpcError):  # it has ended
            host.jobs.Stop(job_pb2.StopRequest(ref=job.name, force=True), timeout=30 * PATIENCE)
        host.jobs.Delete(job_pb2.DeleteRequest(name=job.name), timeout=30 * PATIENCE)
    for one in volumes(host):
        eventually(lambda name=one.name: removed(host, name), what=f"{one.name} may be removed")  # type: ignore[misc]
    eventually(lambda: not volumes(host), what="no volume any more")


def removed(host: Host, name: str) -> bool:
    """Ask for the volume's end. Returns whether that was accepted; it is not while a run uses it."""
    try:
        service(host).DeleteResource(
            resource_pb2.DeleteResourceRequest(kind="Volume", name=name), timeout=30 * PATIENCE
        )
    except grpc.RpcError as error:
        return error.code() is grpc.StatusCode.NOT_FOUND
    return True


def list_request() -> job_pb2.ListRequest:
    return job_pb2.ListRequest(page_size=500)


def service(host: Host) -> resource_pb2_grpc.ResourceServiceStub:
    host.client()
    return resource_pb2_grpc.ResourceServiceStub(host.channels["admin"])


def volumes(host: Host) -> list[resource_pb2.Resource]:
    answer = service(host).ListResources(resource_pb2.ListResourcesRequest(kind="Volume"), timeout=30 * PATIENCE)
    return list(answer.resources)


def volume(host: Host, name: str) -> resource_pb2.Resource:
    found: resource_pb2.Resource = service(host).GetResource(
        resource_pb2.GetResourceRequest(kind="Volume", name=name), timeout=30 * PATIENCE
    )
    return found


def declare(host: Host, name: str, size: str = "32Mi", kind: str = "filesystem") -> None:
    """Apply it, and wait until it is there."""
    host.apply(f"apiVersion: joblet/v1\nkind: Volume\nmetadata: {{name: {name}}}\nspec: {{size: {size}, type: {kind}}}")
    eventually(lambda: is_ready(host, name), what=f"{name} is ready")


def is_ready(host: Host, name: str) -> bool:
    return any(one.type == "Ready" and one.status == "True" for one in volume(host, name).conditions)


def start(host: Host, name: str, script: str, *mounts: str, more: str = "") -> None:
    """Apply a job that runs the script with these volumes. mounts: each as in ``{name: data, path: /data}``."""
    lines = "".join(f"    {line}\n" for line in script.strip().splitlines())
    host.apply(
        f"apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n  script: |\n{lines}"
        f"  volumes: [{', '.join(mounts)}]\n{more}"
    )


def output(host: Host, name: str, script: str, *mounts: str, more: str = "") -> str:
    """Run it to its end, which must be a good one."""
    start(host, name, script, *mounts, more=more)
    run = host.finished(name)
    text = host.log(name).decode()
    assert run.phase == "COMPLETED", (run, text, host.log(name, stream="stderr"))
    return text


def loop_devices(host: Host) -> list[str]:
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            image = path.read_text()
        except OSError:
            continue
        if str(host.root) in image and "/volumes/" in image:
            found.append(path.parts[3])
    return found


@pytest.mark.parametrize("kind", ["filesystem", "memory"])
def test_data_outlives_the_jobs_and_the_daemon(host: Host, kind: str) -> None:
    declare(host, "kept", kind=kind)
    output(host, "writer", "echo first >/data/file", "{name: kept, path: /data}")
    assert output(host, "reader", "cat /data/file; echo second >>/data/file", "{name: kept, path: /data}") == "first\n"
    host.stop()
    host.start()
    again = output(host, "again", "cat /var/lib/elsewhere/file", "{name: kept, path: /var/lib/elsewhere}")
    assert again == "first\nsecond\n"


@pytest.mark.parametrize("kind", ["filesystem", "memory"])
def test_a_killed_daemon_harms_no_job_that_writes(host: Host, kind: str) -> None:
    declare(host, "steady", kind=kind)
    script = "i=0\nwhile [ ! -e /data/end ]; do i=$((i+1)); echo $i >>/data/lines; done\necho $i"
    start(host, "long", script, "{name: steady, path: /data}")
    host.running("long")
    host.kill()
    host.start()
    # Were it mounted by a second device, this job would see an older state, and the first would not see its file.
    assert "lines" in output(host, "other", "ls /data; touch /data/end", "{name: steady, path: /data}")
    assert host.finished("long").phase == "COMPLETED"
    written = int(host.log("long"))
    assert len(loop_devices(host)) == (1 if kind == "filesystem" or not maps_tmpfs() else 0)
    lines = output(host, "count", "wc -l </data/lines; tail -n1 /data/lines", "{name: steady, path: /data}")
    assert lines.split() == [str(written), str(written)]


def maps_tmpfs() -> bool:
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int(minor)) >= (6, 3)


@pytest.mark.parametrize("kind", ["filesystem", "memory"])
def test_a_full_volume_is_enospc_in_the_job(host: Host, kind: str) -> None:
    declare(host, "small", "16Mi", kind)
    script = """
head -c 15M /dev/zero >/data/fits
if head -c 4M /dev/zero >/data/more; then echo no limit; fi
sync /data/more; ls /data
df --block-size=1 --output=used,avail /data | tail -n1
"""
    start(host, "filler", script, "{name: small, path: /data}")
    assert host.finished("filler").phase == "COMPLETED"
    *names, used, free = host.log("filler").decode().split()
    assert names == ["fits", "more"]
    assert int(used) >= 16 << 20 and free == "0"
    assert b"No space left on device" in host.log("filler", stream="stderr")
    assert volume(host, "small").status["used"] == "16Mi"


@pytest.mark.parametrize("kind", ["filesystem", "memory"])
def test_what_is_used_of_a_volume_is_what_df_says_in_the_job(host: Host, kind: str) -> None:
    declare(host, "half", "16Mi", kind)
    script = "head -c 5000000 /dev/zero >/data/x; sync /data/x; df --block-size=1 --output=used /data | tail -n1"
    used = int(output(host, "writer", script, "{name: half, path: /data}"))
    assert 5_000_000 < used < 5_400_000
    assert volume(host, "half").status["used"] == rounded(used)


def test_limits_on_io_hold_on_a_volume_on_disk(host: Host) -> None:
    declare(host, "slow")
    host.apply("""
        apiVersion: joblet/v1
        kind: Job
        metadata: {name: throttled}
        spec:
          command: [dd, if=/dev/zero, of=/data/x, bs=1M, count=8, conv=fsync]
          volumes: [{name: slow, path: /data}]
          limits: {io: {write: 4Mi}}
    """)
    run = host.finished("throttled")
    assert run.phase == "COMPLETED"
    assert seconds_of_dd(host.log("throttled", stream="stderr")) > 1.2


@pytest.mark.parametrize("kind", ["filesystem", "memory"])
def test_empty_files_are_bounded_too(host: Host, kind: str) -> None:
    declare(host, "files", "1Mi", kind)
    script = "seq 5000 | sed 's,^,/data/,' | xargs touch 2>/dev/null || echo full\nls /data | wc -l"
    full, count = output(host, "many", script, "{name: files, path: /data}").split()
    assert full == "full" and 10 < int(count) < 5000


@pytest.mark.parametrize("kind", ["filesystem", "memory"])
def test_read_only_is_read_only_and_the_same_volume_can_be_written_elsewhere(host: Host, kind: str) -> None:
    declare(host, "both", kind=kind)
    script = "touch /data/no 2>&1 || true; rm /data/yes 2>&1 || true; cat /data/yes"
    output(host, "writes", "echo content >/data/yes", "{name: both, path: /data}")
    text = output(host, "reads", script, "{name: both, path: /data, readOnly: true}")
    assert text.count("Read-only file system") == 2 and text.endswith("content\n")
    output(host, "writes-on", "touch /data/more", "{name: both, path: /data}")


@pytest.mark.parametrize("kind", ["filesystem", "memory"])
def test_two_jobs_at_once_share_it_and_see_the_same_owners(host: Host, kind: str) -> None:
    """Each has host ids of its own; what they store and see are the ids inside."""
    declare(host, "common", kind=kind)
    script = """
echo hello >/data/hello; cat /proc/self/uid_map
until [ -e /data/answer ]; do sleep 0.05; done
stat -c '%u %g %n' /data/*
"""
    start(host, "first", script, "{name: common, path: /data}")
    script = """
until [ -e /data/hello ]; do sleep 0.05; done
cat /data/hello; cat /proc/self/uid_map; echo hi >/data/answer.new; mv /data/answer.new /data/answer
stat -c '%u %g %n' /data/*
rm /data/hello 2>&1 || (echo x >>/data/hello) 2>&1 || true
"""
    second = output(
        host, "second", script, "{name: common, path: /data}", more="  isolation: {user: 1000}\n"
    ).splitlines()
    assert host.finished("first").phase == "COMPLETED"
    first = host.log("first").decode().splitlines()
    assert second[0] == "hello"
    assert second[1] != first[0]  # the maps
    assert first[1:] == second[2:4] == ["1000 1000 /data/answer", "0 0 /data/hello"]
    assert "Operation not permitted" in second[4] and "Permission denied" in second[5]


def test_devices_and_set_user_id_bits_mean_nothing_on_it(host: Host) -> None:
    declare(host, "flags")
    script = """
grep ' /data ' /proc/self/mountinfo
cp /bin/true /data/program; chmod 4755 /data/program; /data/program && echo ran
mknod /data/null c 1 3 2>/dev/null && echo made
true
"""
    lines = output(host, "looks", script, "{name: flags, path: /data}").splitlines()
    options = lines[0].split()[5].split(",")
    assert {"rw", "nosuid", "nodev"} <= set(options)
    assert lines[1:] == ["ran"]
    assert str(host.root) not in lines[0]


@pytest.mark.parametrize(
    "path", ["/data", "/srv/deep/data", "/opt/data", "/mnt", "/var/lib/data", "/work/a/data", "/tmp/data", "/home/me"]
)
def test_it_can_be_mounted_at_many_places(host: Host, path: str) -> None:
    if not any(one.name == "places" for one in volumes(host)):
        declare(host, "places")
    script = f"""
echo there >{path}/file
cd {path}; pwd
ls /usr/bin/env /etc/passwd /dev/null /proc/self/stat >/dev/null
mkdir /x /opt/x /etc/x 2>/dev/null && echo wrote
touch /work/mine /tmp/mine
[ {path} = /work/a/data ] && touch /work/a/beside
true
"""
    name = "at" + path.replace("/", "-")
    assert output(host, name, script, f"{{name: places, path: {path}}}") == f"{path}\n"


def test_places_of_one_job_are_not_seen_by_another(host: Host) -> None:
    declare(host, "private")
    output(host, "with", "test -d /secret-place", "{name: private, path: /secret-place}")
    host.apply("""
        apiVersion: joblet/v1
        kind: Job
        metadata: {name: without}
        spec: {command: [ls, /]}
    """)
    assert host.finished("without").phase == "COMPLETED"
    assert "secret-place" not in host.log("without").decode()


def test_a_volume_in_use_is_not_removed_and_goes_with_all_that_it_was(host: Host) -> None:
    declare(host, "busy")
    start(host, "user", "touch /data/x; until [ -e /data/end ]; do sleep 0.05; done", "{name: busy, path: /data}")
    host.running("user")
    refused = host.rnx("volume", "remove", "busy")
    assert refused.status == 6 and "is used by user" in refused.err and "rnx stop user" in refused.err
    assert volume(host, "busy").used_by == ["user"]
    output(host, "helper", "touch /data/end", "{name: busy, path: /data}")
    assert host.finished("user").phase == "COMPLETED"
    directory = host.root / "state/volumes/busy"
    assert (directory / "volume.img").stat().st_mode & 0o7777 == 0o600
    assert loop_devices(host)
    removed = host.rnx("volume", "remove", "busy")
    assert (removed.status, removed.out) == (0, "volume/busy deleted\n")
    eventually(lambda: not volumes(host))
    eventually(lambda: not loop_devices(host))
    assert os.listdir(host.root / "state/volumes") == []
    assert f"{host.root}/state" not in Path("/proc/self/mountinfo").read_text()


def test_a_removed_memory_volume_is_unmounted(host: Host) -> None:
    declare(host, "fleeting", kind="memory")
    output(host, "uses", "mkdir -p /data/a/b; echo x >/data/a/b/c", "{name: fleeting, path: /data}")
    place = host.root / "run/volumes/fleeting"
    assert place.is_mount()
    assert host.rnx("volume", "remove", "fleeting").status == 0
    eventually(lambda: not volumes(host))
    assert not place.exists()
    eventually(lambda: not loop_devices(host), what="the loop device to be free")
    assert str(host.root / "run/volumes") not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize("kind", ["filesystem", "memory"])
def test_it_grows_in_place_and_never_shrinks_or_changes_its_type(host: Host, kind: str) -> None:
    declare(host, "growing", "16Mi", kind)
    mount = "{name: growing, path: /data}"
    output(host, "before", "head -c 15M /dev/zero >/data/a", mount)
    declare(host, "growing", "48Mi", kind)
    output(host, "after", "head -c 30M /dev/zero >/data/b; cmp -n 15M /data/a /dev/zero", mount)
    assert volume(host, "growing").status["size"] == "48Mi"
    for change in ("size: 16Mi", f"size: 48Mi, type: {'memory' if kind == 'filesystem' else 'filesystem'}"):
        spec = change if "type" in change else f"{change}, type: {kind}"
        with pytest.raises(grpc.RpcError) as refused:
            host.apply(f"apiVersion: joblet/v1\nkind: Volume\nmetadata: {{name: growing}}\nspec: {{{spec}}}")
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "cannot" in str(refused.value.details()) and "copy what is in it" in str(refused.value.details())
    assert volume(host, "growing").generation == 2


@pytest.mark.parametrize("kind", ["filesystem", "memory"])
def test_it_grows_under_a_running_job_where_the_kernel_lets_the_daemon(host: Host, kind: str) -> None:
    """ext4 grows while it is mounted only for who has CAP_SYS_RESOURCE, which containers often lack, and the guest has not."""
    declare(host, "growing", "16Mi", kind)
    script = "until head -c 30M /dev/zero 2>/dev/null >/data/a; do sleep 0.1; done; echo grown; sleep 600"
    start(host, "user", script, "{name: growing, path: /data}")
    run = host.running("user")
    spec = f"{{size: 48Mi, type: {kind}}}"
    host.apply(f"apiVersion: joblet/v1\nkind: Volume\nmetadata: {{name: growing}}\nspec: {spec}")
    if kind == "memory" or has_capability(CAP_SYS_RESOURCE):
        eventually(lambda: host.log("user", follow=False) == b"grown\n", what="room in the job")
        assert host.run("user").id == run.id
        return
    why = eventually(lambda: next((one.message for one in volume(host, "growing").conditions if one.message), ""))
    assert "cannot grow while a job uses it, as the daemon has no CAP_SYS_RESOURCE" in why
    assert host.run("user").phase == "RUNNING"
    host.jobs.Stop(job_pb2.StopRequest(ref="user", force=True), timeout=30 * PATIENCE)
    host.finished("user")
    output(host, "after", "rm /data/a; head -c 40M /dev/zero >/data/b", "{name: growing, path: /data}")


def has_capability(number: int) -> bool:
    (effective,) = re.findall(r"^CapEff:\s+(\w+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return bool(int(effective, 16) >> number & 1)


def test_what_the_disk_has_no_room_for_says_so(host: Host) -> None:
    host.apply("apiVersion: joblet/v1\nkind: Volume\nmetadata: {name: vast}\nspec: {size: 900Ti}")
    message = eventually(lambda: next((one.message for one in volume(host, "vast").conditions if one.message), ""))
    assert "spec.size: needs" in message and "free" in message
    assert not (host.root / "state/volumes/vast").exists()


def test_a_job_waits_for_its_volume(host: Host) -> None:
    start(host, "early", "touch /data/x", "{name: late, path: /data}")
    waits = host.watch_until("early", lambda run: run.reason == "Waiting")
    assert "volume/late does not exist" in waits.message
    declare(host, "late")
    assert host.finished("early").phase == "COMPLETED"


def test_a_volume_and_its_job_in_one_file_of_the_spool(host: Host) -> None:
    path = host.spool / "both.yml"
    path.write_text("""\
apiVersion: joblet/v1
kind: Job
metadata: {name: spooled}
spec: {command: [touch, /data/x], volumes: [{name: spooled-data, path: /data}]}
---
apiVersion: joblet/v1
kind: Volume
metadata: {name: spooled-data}
spec: {size: 8Mi}
""")
    try:
        eventually(lambda: any(job.name == "spooled" for job in host.jobs.List(list_request()).jobs))
        assert host.finished("spooled").phase == "COMPLETED"
    finally:
        path.unlink()
    eventually(lambda: not volumes(host), what="the volume went with its file")
    assert not (host.root / "state/volumes/spooled-data").exists()


def test_links_on_the_way_to_a_volume_are_not_followed(host: Host) -> None:
    """A root file system of somebody else's has a link where a volume is to be seen; it leads to a directory of the host."""
    declare(host, "linked")
    rootfs, victim = host.root / "images/rootfs", host.root / "victim"
    for directory in ("usr", "etc", "dev", "proc", "sys", "run", "work", "tmp"):
        (rootfs / directory).mkdir(parents=True)
    victim.mkdir()
    (rootfs / "data").symlink_to(victim)
    start(host, "follows", "true", "{name: linked, path: /data/deep}", more=f"  isolation: {{rootfs: {rootfs}}}\n")
    run = host.finished("follows")
    assert (run.phase, run.reason) == ("FAILED", "StartError")
    assert "volume linked" in run.message
    assert os.listdir(victim) == []


@CLIENTS_WORDS
@pytest.mark.parametrize("name", ["..", "a/b", "A", ".new-x", "x" * 64, "-x", "volume.img", "a b"])
def test_hostile_names_are_refused(host: Host, name: str) -> None:
    created = host.rnx("volume", "create", "--size", "1Mi", "--", name)
    assert created.status == 2 and "is not a name" in created.err, created
    assert volumes(host) == []


@CLIENTS_WORDS
def test_whose_jobs_use_a_volume_is_said_when_it_is_made(host: Host) -> None:
    made = host.rnx("volume", "create", "ours", "--size=1Mi", "--executor", "local")
    assert made.status == 0, made
    assert "executor: local" in host.rnx("get", "volume/ours", "--manifest", "-o", "yaml").out
    refused = host.rnx("volume", "create", "theirs", "--size=1Mi", "--executor", "nowhere")
    assert refused.status == 2 and "--executor: " in refused.err, refused
    assert host.rnx("volume", "remove", "ours").status == 0


def test_half_made_and_half_gone_volumes_are_cleaned_up_and_data_is_not(host: Host) -> None:
    declare(host, "whole")
    host.stop()
    directory = host.root / "state/volumes"
    for name in (".new-x", ".gone-y", "unknown"):
        (directory / name).mkdir()
        (directory / name / "volume.img").write_text("data")
    host.start()
    assert sorted(os.listdir(directory)) == ["unknown", "whole"]
    assert "data of a volume that nobody declares" in (host.root / "daemon.log").read_text()
    (directory / "unknown/volume.img").unlink()
    (directory / "unknown").rmdir()


@CLIENTS_WORDS
def test_rnx_volume_creates_lists_and_removes(host: Host) -> None:
    created = host.rnx("volume", "create", "backup", "--size=16Mi")
    assert (created.status, created.out) == (0, "volume/backup created\n"), created
    again = host.rnx("volume", "create", "backup", "--size=8Mi")
    assert again.status == 6 and "there is a volume backup already" in again.err
    assert host.rnx("volume", "create", "fast", "--size", "2Mi", "--type", "memory").status == 0
    wrote = host.rnx("run", "--wait", "--volume", "backup", "--volume", "fast:/fast", "sh", "-c",
                     "head -c 3M /dev/zero >/volumes/backup/x; touch /fast/y; ls /volumes /fast")  # fmt: skip
    assert (wrote.status, wrote.out.split()) == (0, ["/fast:", "y", "/volumes:", "backup"]), wrote
    refused = host.rnx("run", "--wait", "--volume", "backup:/data:ro", "touch", "/data/z")
    assert refused.status == 1 and "Read-only file system" in refused.err
    header, *rows = [line.split() for line in host.rnx("volume", "list").out.splitlines()]
    assert header == ["NAME", "READY", "SIZE", "TYPE", "USED", "USED", "BY"]
    assert rows[0][:4] == ["backup", "True", "16Mi", "filesystem"] and rows[0][4] in ("3080Ki", "3084Ki")
    assert rows[1][:4] == ["fast", "True", "2Mi", "memory"]
    assert host.rnx("volume", "remove", "backup", "fast").status == 0
    eventually(lambda: host.rnx("volume", "list", "-o", "name").out == "")


@CLIENTS_WORDS
def test_rnx_tells_what_is_wrong_with_a_volume(host: Host) -> None:
    wrong = host.rnx("volume", "create", "x", "--size", "much", "--type", "tape")
    assert wrong.status == 2 and "--size: " in wrong.err and "--type: " in wrong.err and "is not a size" in wrong.err
    vast = host.rnx("volume", "create", "vast", "--size", "900Ti")
    assert vast.status == 1 and "volume vast is not ready: spec.size: needs" in vast.err
    use = host.rnx("run", "--volume", "x:/data:no", "true")
    assert use.status == 2 and "write NAME, NAME:PATH or NAME:PATH:ro" in use.err
    place = host.rnx("run", "--volume", "x:/etc/x", "true")
    assert place.status == 2 and "--volume: " in place.err and "is the sandbox's own" in place.err
    gone = host.rnx("volume", "remove", "no-such")
    assert gone.status == 3 and "no volume 'no-such'" in gone.err
