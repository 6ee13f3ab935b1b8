"""Git repositories as sources of a real daemon: over https, ssh and from a directory."""

from __future__ import annotations

import json
import random
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import grpc
import pytest

from joblet.api.v1 import job_pb2, resource_pb2, resource_pb2_grpc
from tests.git_repository import Repository, job
from tests.integration.git_server import TOKEN, HttpsServer, SshServer, serving
from tests.integration.host import Host, eventually, job_host
from tests.timing import PATIENCE

pytestmark = pytest.mark.native_only(
    reason="what git does is the same whatever the cgroups are, and takes minutes there"
)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host() as host:
        yield host


@pytest.fixture
def repository(host: Host, request: pytest.FixtureRequest) -> Iterator[Repository]:
    """A repository named after the test; what the test declared of it is gone afterwards, and so is what it ran."""
    directory = host.root.parent / "git"
    directory.mkdir(exist_ok=True)
    name = request.node.name[5:45].strip("_").replace("_", "-").replace("[", "-").strip("]")
    yield Repository(directory / name, directory / f"{name}.git")
    if host.daemon is None:
        host.start()
    for source in sources(host):
        forget(host, source.name)
    eventually(lambda: not sources(host), what="no git source any more")
    for one in jobs(host):
        if not one.deleting:
            host.jobs.Delete(job_pb2.DeleteRequest(name=one.name))
    eventually(lambda: not jobs(host), what="no job any more")


def service(host: Host) -> resource_pb2_grpc.ResourceServiceStub:
    host.client()  # which opens the channel
    return resource_pb2_grpc.ResourceServiceStub(host.channels["admin"])


def sources(host: Host) -> list[resource_pb2.Resource]:
    request = resource_pb2.ListResourcesRequest(kind="GitSource")
    return list(service(host).ListResources(request, timeout=30 * PATIENCE).resources)


def forget(host: Host, name: str = "fleet") -> None:
    service(host).DeleteResource(resource_pb2.DeleteResourceRequest(kind="GitSource", name=name))


def jobs(host: Host) -> list[job_pb2.Job]:
    return list(host.jobs.List(job_pb2.ListRequest(page_size=1000), timeout=30 * PATIENCE).jobs)


def names(host: Host) -> set[str]:
    return {one.name for one in jobs(host) if not one.deleting}


def follow(host: Host, url: str, spec: str = "") -> None:
    """Declare the source ``fleet``, which is looked at when a test asks for it."""
    host.apply(
        f"apiVersion: joblet/v1\nkind: GitSource\nmetadata: {{name: fleet}}\n"
        f"spec: {{url: '{url}', interval: 1h, timeout: 20s{', ' if spec else ''}{spec}}}\n"
    )


def sync(host: Host, *, allow_delete: bool = False, take_over: bool = False) -> resource_pb2.SyncSourceResponse:
    request = resource_pb2.SyncSourceRequest(name="fleet", allow_delete=allow_delete, take_over=take_over)
    answer: resource_pb2.SyncSourceResponse = service(host).SyncSource(request, timeout=60 * PATIENCE)
    return answer


def synced(host: Host, **wishes: bool) -> resource_pb2.SyncSourceResponse:
    answer = sync(host, **wishes)
    assert answer.in_line, (answer.reason, answer.message, host.log_tail())
    return answer


def secret(host: Host, **values: str) -> None:
    data = json.dumps({key.replace("_", "-").replace("ca-crt", "ca.crt"): value for key, value in values.items()})
    host.apply(f"apiVersion: joblet/v1\nkind: Secret\nmetadata: {{name: git}}\nspec: {{data: {data}}}\n")


def test_a_commit_runs_an_edit_restarts_and_a_removal_stops(host: Host, repository: Repository) -> None:
    first = repository.commit({"jobs/a.yml": job("a"), "jobs/b.yml": job("b", "[echo, well]"), "README": ""})
    follow(host, repository.url, "path: jobs")
    assert synced(host).revision == f"main@{first[:12]}"
    run = host.running("a")
    assert host.finished("b").phase == "COMPLETED"
    assert host.job("a").source == f"git:fleet@{first[:12]}:jobs/a.yml"
    second = repository.commit({"jobs/a.yml": job("a", '[sleep, "601"]')})
    synced(host)
    assert host.watch_until("a", lambda one: one.generation == 2 and one.phase == "RUNNING").id != run.id
    assert host.job("a").source == f"git:fleet@{second[:12]}:jobs/a.yml"
    assert host.job("b").source == f"git:fleet@{first[:12]}:jobs/b.yml" and host.run("b").generation == 1
    repository.remove("jobs")
    repository.commit()
    answer = sync(host)
    assert (answer.in_line, answer.reason) == (False, "DeletionGuard") and names(host) == {"a", "b"}
    synced(host, allow_delete=True)
    eventually(lambda: not jobs(host), what="both are gone")


def test_a_push_is_followed_after_at_most_an_interval(host: Host, repository: Repository) -> None:
    repository.commit({"a.yml": job("a", "[echo, one]")})
    host.apply(
        "apiVersion: joblet/v1\nkind: GitSource\nmetadata: {name: fleet}\n"
        f"spec: {{url: '{repository.url}', interval: 1s}}\n"
    )
    eventually(lambda: "a" in names(host), what="the first look")
    repository.commit({"b.yml": job("b", "[echo, two]")})
    eventually(lambda: "b" in names(host), what="the push is seen")
    assert host.finished("b").phase == "COMPLETED"


def test_a_private_repository_is_followed_over_https_with_a_token(host: Host, repository: Repository) -> None:
    server = HttpsServer(repository.origin.parent)
    with serving(server):
        url = f"{server.url}/{repository.origin.name}"
        commit = repository.commit({"a.yml": job("a")})
        follow(host, url)
        answer = sync(host)
        assert answer.reason == "NotSynced" and "certificate" in answer.message
        secret(host, ca_crt=server.ca, token="wrong")
        follow(host, url, "credentials: git")
        answer = sync(host)
        assert answer.reason == "NotSynced" and "accepts none that it got" in answer.message, answer
        secret(host, ca_crt=server.ca, token=TOKEN)
        assert synced(host).revision == f"main@{commit[:12]}"
        server.redirect = f"https://localhost:1/{repository.origin.name}"
        repository.commit({"a.yml": job("a", "[other]")})
        answer = sync(host)
        assert not answer.in_line and "redirect" in answer.message.lower(), answer
        assert names(host) == {"a"}
    answer = sync(host)
    assert answer.reason == "NotSynced" and f"{commit[:12]} stays in force" in answer.message
    assert TOKEN not in (host.root / "daemon.log").read_text()
    assert not any(
        TOKEN.encode() in path.read_bytes() for path in (host.root / "state/git").rglob("*") if path.is_file()
    )


def test_a_private_repository_is_followed_over_ssh_from_a_known_host(host: Host, repository: Repository) -> None:
    directory = repository.origin.parent / "ssh"
    directory.mkdir(mode=0o700)
    server = SshServer(directory)
    with serving(server):
        commit = repository.commit({"a.yml": job("a")})
        url = server.url(repository.origin)
        follow(host, url)
        answer = sync(host)
        assert answer.reason == "NoCredentials" and "ssh-key" in answer.message
        secret(host, ssh_key=server.key, known_hosts=server.known_hosts.replace(" AAAA", " AAAB"))
        follow(host, url, "credentials: git")
        answer = sync(host)
        assert answer.reason == "NotSynced" and "Host key verification failed" in answer.message
        other = directory / "other"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
        secret(host, ssh_key=other.read_text(), known_hosts=server.known_hosts)
        answer = sync(host)
        assert answer.reason == "NotSynced" and "Permission denied (publickey" in answer.message
        secret(host, ssh_key=server.key, known_hosts=server.known_hosts)
        assert synced(host).revision == f"main@{commit[:12]}"
        host.running("a")


def test_a_server_that_never_answers_holds_nobody_up(host: Host, repository: Repository) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        url = f"https://127.0.0.1:{port}/x.git"
        declared = (
            f"apiVersion: joblet/v1\nkind: GitSource\nmetadata: {{name: fleet}}\nspec: {{url: '{url}', interval: 1h, "
        )
        host.apply(f"{declared}timeout: 1s}}\n")
        answer = sync(host)
        assert answer.reason == "NotSynced" and "took longer than 1 s" in answer.message
        host.apply(f"{declared}timeout: 10m}}\n")
        looking = service(host).SyncSource.future(resource_pb2.SyncSourceRequest(name="fleet"), timeout=60 * PATIENCE)
        host.apply(job("meanwhile", "[echo, well]"))
        assert host.finished("meanwhile").phase == "COMPLETED"
        assert not looking.done()
        eventually(lambda: any("remote-https" in line for line in programs(url)), what="git's helper is on its way")
        host.kill()
        eventually(lambda: not programs(url), what="it died with the daemon")


def programs(url: str) -> list[str]:
    """All processes that name that URL: git, and the helper that speaks https for it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if url in line]


def test_what_runs_survives_a_restart_and_the_repositorys_absence(host: Host, repository: Repository) -> None:
    commit = repository.commit({"a.yml": job("a")})
    follow(host, repository.url)
    synced(host)
    run = host.running("a")
    repository.origin.rename(repository.origin.with_suffix(".away"))
    host.kill()
    host.start()
    answer = sync(host)
    assert (answer.in_line, answer.revision) == (False, f"main@{commit[:12]}")
    assert host.run("a").id == run.id and host.run("a").phase == "RUNNING"
    repository.origin.with_suffix(".away").rename(repository.origin)
    synced(host)
    assert host.run("a").id == run.id and host.job("a").generation == 1


def test_a_job_goes_from_the_spool_to_git_and_to_a_client_without_a_restart(host: Host, repository: Repository) -> None:
    for name in ("a", "marker"):
        (host.spool / f"{name}.yml").write_text(job(name))
    eventually(lambda: {"a", "marker"} <= set(names(host)), what="the spool's jobs")
    run = host.running("a")
    repository.commit({"jobs/a.yml": job("a")})
    follow(host, repository.url)
    answer = sync(host)
    assert answer.reason == "Conflict" and "a in jobs/a.yml belongs to spool:a.yml" in answer.message
    synced(host, take_over=True)
    assert host.job("a").source.startswith("git:fleet@")
    for name in ("a", "marker"):
        (host.spool / f"{name}.yml").unlink()
    eventually(lambda: "marker" not in names(host), what="the spool has seen what left before it")
    with pytest.raises(grpc.RpcError) as caught:
        host.apply(job("a"))
    assert "belongs to git:fleet" in str(caught.value) and "--take-over" in str(caught.value)
    manifest = host.root / "a.yml"
    manifest.write_text(job("a"))
    taken = host.rnx("apply", "-f", manifest, "--take-over")
    assert taken.status == 0, taken.err
    assert host.job("a").source == "grpc:admin"
    assert sync(host).reason == "Conflict"
    assert host.run("a").id == run.id and host.run("a").phase == "RUNNING" and host.job("a").generation == 1
    synced(host, take_over=True)
    assert host.run("a").id == run.id


def test_a_file_that_leaves_the_spool_leaves_its_job_to_the_repository_that_declares_it(
    host: Host, repository: Repository
) -> None:
    (host.spool / "a.yml").write_text(job("a"))
    eventually(lambda: "a" in names(host), what="the spool's job")
    run = host.running("a")
    repository.commit({"jobs/a.yml": job("a")})
    follow(host, repository.url)
    assert sync(host).reason == "Conflict"
    (host.spool / "a.yml").unlink()
    eventually(lambda: host.job("a").source.startswith("git:fleet@"), what="the repository has it")
    eventually(lambda: sources(host)[0].conditions[0].status == "True", what="and has seen that")
    assert host.run("a").id == run.id and host.run("a").phase == "RUNNING" and host.job("a").generation == 1
    (host.spool / "b.yml").write_text(job("a"))
    eventually((host.spool / "status/b.yml.error.yml").exists, what="the spool's conflict")
    repository.remove("jobs")
    repository.commit()
    synced(host)
    eventually(lambda: host.job("a").source == "spool:b.yml", what="the spool has it back")
    eventually(lambda: not (host.spool / "status/b.yml.error.yml").exists(), what="and has seen that")
    assert host.run("a").id == run.id and host.job("a").generation == 1
    (host.spool / "b.yml").unlink()
    eventually(lambda: not jobs(host), what="nobody declares it any more")


def test_a_job_stopped_by_hand_runs_again_and_a_finished_one_does_not(host: Host, repository: Repository) -> None:
    repository.commit({"a.yml": job("a"), "done.yml": job("done", "[echo, well]")})
    follow(host, repository.url)
    synced(host)
    first, done = host.running("a"), host.finished("done")
    host.jobs.Stop(job_pb2.StopRequest(ref="a", force=True))
    host.finished("a")
    synced(host)
    again = host.running("a")
    assert again.id != first.id and again.trigger == "drift"
    assert host.run("done").id == done.id
    follow(host, repository.url, "drift: report")
    host.jobs.Stop(job_pb2.StopRequest(ref="a", force=True))
    host.finished("a")
    synced(host)
    assert ("Drifted", "True") in {(one.type, one.status) for one in host.job("a").conditions}
    assert host.run("a").id == again.id
    assert sources(host)[0].status["drifted"] == "1"


def test_a_source_that_goes_takes_what_it_declared_along_unless_it_does_not_prune(
    host: Host, repository: Repository
) -> None:
    volume = "apiVersion: joblet/v1\nkind: Volume\nmetadata: {name: data}\nspec: {size: 16Mi}\n"
    uses = job("a").replace("stop:", "volumes: [{name: data, path: /data}], stop:")
    repository.commit({"all.yml": f"{volume}---\n{uses}"})
    follow(host, repository.url)
    synced(host)
    host.running("a")
    forget(host)
    eventually(lambda: not jobs(host) and not sources(host), what="all of it is gone")
    assert host.rnx("get", "volumes", "-o", "name").out == ""
    assert not list((host.root / "state/git").glob("fleet*"))
    repository.commit({"all.yml": job("a")})
    follow(host, repository.url, "prune: false")
    synced(host)
    run = host.running("a")
    forget(host)
    eventually(lambda: not sources(host), what="the source is gone")
    assert host.run("a").id == run.id and host.job("a").source == "grpc:left-by-fleet"
    assert host.rnx("delete", "a").status == 0


def test_people_see_what_comes_from_where(host: Host, repository: Repository) -> None:
    commit = repository.commit({"jobs/a.yml": job("a"), "bad.yml": job("b").replace("command", "comand")})
    follow(host, repository.url)
    failed = host.rnx("sync", "fleet")
    assert failed.status == 1 and "bad.yml:4:" in failed.err and "Ann Author" in failed.err
    assert "InvalidManifest" in host.rnx("get", "gitsources").out
    commit = repository.commit({"bad.yml": job("b", "[echo, well]")})
    done = host.rnx("sync", "fleet")
    assert done.out == f"gitsource/fleet main@{commit[:12]}: 2 manifests in force\n", done.err
    host.running("a")
    host.finished("b")
    table = host.rnx("get", "gitsources").out.splitlines()
    assert table[0].split()[:5] == ["NAME", "READY", "MANIFESTS", "REVISION", "SYNCED"]
    assert table[1].split()[:4] == ["fleet", "True", "2", f"main@{commit[:12]}"]
    assert f"git:fleet@{commit[:12]}:jobs/a.yml" in host.rnx("get", "jobs").out
    tree = host.rnx("tree", "fleet").out.splitlines()
    assert tree[0] == "git:fleet" and tree[1] == f"├─ bad.yml @ {commit[:12]}"
    assert tree[2] == "│  └─ job/b generation 1" and "COMPLETED" in tree[3] and "attempt 1 COMPLETED" in tree[4]
    assert host.rnx("sync", "fleet", role="viewer").status == 5
    assert host.rnx("sync", "nothing").status == 3
    described = host.rnx("describe", "gitsource/fleet").out
    assert "Applied" in described and "Ann Author <ann@example.org>" in described


@pytest.mark.parametrize("seed", [1, 2])
def test_edits_in_any_order_come_to_one_state(host: Host, repository: Repository, seed: int) -> None:
    """What each source says in the end counts, whichever came first, with a daemon that is killed in between."""

    def at(name: str, version: int) -> str:
        return job(name, f'[sleep, "{1000 + version}"]')

    def drop(name: str, version: int) -> None:
        (host.spool / f".{name}.tmp").write_text(at(name, version))
        (host.spool / f".{name}.tmp").rename(host.spool / f"{name}.yml")

    def commit(**versions: int) -> None:
        for path in repository.clone.glob("*.yml"):
            path.unlink()
        repository.commit({f"{name}.yml": at(name, version) for name, version in versions.items()})

    def die() -> None:
        host.kill()
        host.start()

    commit(both=1)
    follow(host, repository.url)
    synced(host)
    edits: list[list[Callable[[], object]]] = [
        [partial(drop, "a", 1), partial(drop, "b", 1), partial(drop, "a", 2), (host.spool / "b.yml").unlink],
        [
            partial(commit, both=1, c=1),
            partial(commit, both=2, c=2, d=1),
            partial(sync, host),
            partial(commit, both=2, d=2),
        ],
        [partial(host.apply, at("e", 1)), partial(host.apply, at("f", 1)), partial(host.apply, at("e", 2))],
        [die],
    ]
    chance = random.Random(seed)
    try:
        while left := [one for one in edits if one]:
            chance.choice(left).pop(0)()
        synced(host)
        wanted = {"a": 2, "both": 2, "d": 2, "e": 2, "f": 1}
        eventually(
            lambda: (
                {
                    one.name: int(one.runs[0].command[1]) - 1000
                    for one in jobs(host)
                    if one.runs and one.runs[0].phase == "RUNNING" and not one.deleting
                }
                == wanted
            ),
            what=f"the same state: {wanted}",
        )
        owners = {"a": "spool:a.yml", "both": "git:fleet", "d": "git:fleet", "e": "grpc:admin", "f": "grpc:admin"}
        eventually(
            lambda: {one.name: one.source.partition("@")[0] for one in jobs(host)} == owners, what="and nothing else"
        )
    finally:
        for path in host.spool.glob("*.yml"):
            path.unlink()
        eventually(lambda: not any(one.source.startswith("spool:") for one in jobs(host)), what="the spool is empty")
