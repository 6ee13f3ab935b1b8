"""The host's certificates: exchanged while clients call, revoked at once, and each fault told to whom it concerns."""

from __future__ import annotations

import datetime
import itertools
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from ruamel.yaml import YAML

from joblet.api.v1 import job_pb2, job_pb2_grpc
from joblet.config.client import load_client_config
from joblet.crash_points import VARIABLE
from joblet.pki import Authority, KeyPair, Role
from rnx.daemon import Daemon
from rnx.failures import ClientError
from tests.integration.host import BIN, PATIENCE, Ended, Host, eventually, job_host
from tests.integration.joblet_command import joblet
from tests.integration.test_trust import authority_of, now


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host("127.0.0.1") as host:
        yield host


@pytest.fixture(scope="module", autouse=True)
def oldest(host: Host) -> Path:
    """A client with the very first certificate."""
    return copied(host.root / "config/rnx-config.yml", host.root / "oldest.yml")


def certs(host: Host, *arguments: str | Path) -> Ended:
    return joblet("certs", arguments[0], "--config", host.config, *arguments[1:])


def shown(host: Host) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(certs(host, "show", "--json").out)
    return found


def rnx(config: Path, *arguments: str) -> Ended:
    command: list[str | Path] = [BIN / "rnx", "--config", config, *arguments]
    ended = subprocess.run(command, capture_output=True, timeout=60 * PATIENCE, check=False)
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def refusal(config: Path) -> ClientError:
    """What a call with this configuration ends with; in this process, since there are many."""
    daemon = Daemon(load_client_config(str(config), {}).node())
    try:
        with pytest.raises(ClientError) as refused:
            daemon.node_info()
    finally:
        daemon.close()
    return refused.value


def node_of(path: Path) -> dict[str, str]:
    node: dict[str, str] = YAML(typ="safe").load(path.read_text())["nodes"]["default"]
    return node


def copied(source: Path, target: Path, **changes: str) -> Path:
    content = YAML(typ="safe").load(source.read_text())
    content["nodes"]["default"].update(changes)
    target.touch(0o600)
    with target.open("w") as file:
        YAML().dump(content, file)
    return target


def files(host: Host) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (host.root / "config").iterdir() if path.is_file()}


@pytest.mark.native_only(
    reason="user-mode Linux answers EFAULT to some of the processes that two threads start at once"
)
@pytest.mark.parametrize("arguments", [[], ["--ca"]])
def test_a_rotation_under_a_stream_of_calls_fails_none_of_them(
    host: Host, tmp_path: Path, arguments: list[str]
) -> None:
    elsewhere = copied(host.root / "config/rnx-config.yml", tmp_path / "rnx-config.yml")
    stream = host.jobs.Watch(job_pb2.WatchRequest(), timeout=120 * PATIENCE)
    next(iter(stream))
    ended: list[Ended] = []
    over = threading.Event()

    def calls() -> None:
        for number in itertools.count():
            if over.is_set():
                return
            path = elsewhere if number % 2 else host.root / "config/rnx-config.yml"
            ended.append(rnx(path, "list"))

    callers = [threading.Thread(target=calls) for _ in range(2)]
    for caller in callers:
        caller.start()
    try:
        before = files(host)
        eventually(lambda: len(ended) >= 2, what="first calls")
        rotated = certs(host, "rotate", *arguments)
        done = len(ended)
        eventually(lambda: len(ended) >= done + 4, what="calls afterwards")
    finally:
        over.set()
        for caller in callers:
            caller.join()
    assert rotated.status == 0, rotated.err
    assert [one.err for one in ended if one.status] == []
    after = files(host)
    changed = {name for name in before if before[name] != after[name]}
    expected = {"joblet-config.yml", "rnx-config.yml", "rnx-config-viewer.yml", "issued.jsonl"}
    assert changed == (expected | {"ca.crt", "ca.key"} if arguments else expected)
    (backup, *_) = sorted((host.root / "config/backup").iterdir(), reverse=True)
    assert {path.name: path.read_bytes() for path in backup.iterdir()} == before
    assert all(path.stat().st_mode & 0o077 == 0 for path in [backup, *backup.iterdir()])
    host.apply("apiVersion: joblet/v1\nkind: Job\nmetadata: {name: heard}\nspec: {command: ['true']}\n")
    assert next(event for event in stream if event.job.name == "heard")  # the connection of before
    stream.cancel()
    host.jobs.Delete(job_pb2.DeleteRequest(name="heard"))
    verified = certs(host, "verify")
    assert verified.status == 0, verified.err


def test_an_exchange_that_the_daemon_does_not_answer_is_undone(host: Host) -> None:
    """The daemon refuses the whole configuration, for a reason that only it sees: the log's directory is gone."""
    import shutil

    gone = host.root / "gone"
    gone.mkdir()
    host.configure(lambda content: content["logging"].update(output=f"{gone}/log"))
    before = files(host)
    shutil.rmtree(gone)
    try:
        rotated = certs(host, "rotate", "--ca")
        assert rotated.status == 1
        assert "the old" in rotated.err and "logging.output" in rotated.err
        assert files(host) == before
        assert host.rnx("list").status == 0
    finally:
        host.configure(lambda content: content["logging"].pop("output"))


@pytest.mark.parametrize("point", ["certificates.file-written", "certificates.in-force"])
def test_a_rotation_that_is_killed_needs_no_mending(host: Host, oldest: Path, tmp_path: Path, point: str) -> None:
    """After the first file that is another one, or before it has written the others: whatever is there goes together."""
    (tmp_path / point).touch()
    rotation = subprocess.run(
        [BIN / "joblet", "certs", "rotate", "--ca", "--config", host.config],
        env={**os.environ, VARIABLE: str(tmp_path)},
        stdout=subprocess.DEVNULL,
        timeout=60 * PATIENCE,
        check=False,
    )
    assert rotation.returncode == -signal.SIGKILL
    assert host.rnx("list").status == 0 and rnx(oldest, "list").status == 0
    assert joblet("reload", "--config", host.config).status == 0
    assert host.rnx("list").status == 0 and rnx(oldest, "list").status == 0
    assert certs(host, "verify").status == 0
    assert certs(host, "rotate").status == 0


def test_only_what_is_due_is_renewed(host: Host) -> None:
    assert "nothing is due" in certs(host, "renew").out
    assert certs(host, "issue", "--role", "viewer", "--name", "soon", "--days", "20").status == 0
    entries = {one["name"]: one for one in shown(host)}
    assert (entries["soon"]["state"], entries["admin"]["state"]) == ("expires soon", "valid")
    server = host.config.read_bytes()
    renewed = certs(host, "renew")
    assert "new: client soon (viewer)" in renewed.out and renewed.out.count("new: ") == 1
    assert host.config.read_bytes() == server
    assert rnx(host.root / "config/rnx-config-soon.yml", "list").status == 0


def test_a_further_name_gets_into_the_servers_certificate(host: Host, tmp_path: Path) -> None:
    assert certs(host, "renew", "--address", "renewed.example").status == 0
    port = (host.root / "run/port").read_text().strip()
    shown_by = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-showcerts"],
        input=b"",
        capture_output=True,
        check=False,
    )
    text = subprocess.run(
        ["openssl", "x509", "-noout", "-text"], input=shown_by.stdout, capture_output=True, check=True
    )
    assert b"DNS:renewed.example" in text.stdout and b"DNS:joblet-server" in text.stdout


def test_a_client_is_issued_and_revoked_at_once(host: Host, oldest: Path, tmp_path: Path) -> None:
    path = tmp_path / "anna.yml"
    assert certs(host, "issue", "--role", "admin", "--name", "anna", "--output", path).out == f"{path}\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert certs(host, "issue", "--role", "admin", "--name", "anna", "--output", path).status == 1
    node = node_of(path)
    credentials = grpc.ssl_channel_credentials(*(node[key].encode() for key in ("ca", "key", "cert")))
    with grpc.secure_channel(node["address"], credentials) as channel:
        stream = job_pb2_grpc.JobServiceStub(channel).Watch(job_pb2.WatchRequest(), timeout=120 * PATIENCE)
        assert next(iter(stream)).type == job_pb2.WatchEvent.SYNCED
        others = host.jobs.Watch(job_pb2.WatchRequest(), timeout=120 * PATIENCE)
        next(iter(others))
        revoked = certs(host, "revoke", "--name", "anna")
        assert revoked.status == 0 and "of anna (admin)" in revoked.out
        with pytest.raises(grpc.RpcError) as cut:
            next(iter(stream))
        assert cut.value.code() is grpc.StatusCode.UNAVAILABLE
    refused = rnx(path, "list")
    assert refused.status == 5
    assert "this client's certificate was revoked" in refused.err and "joblet certs issue" in refused.err
    eventually(lambda: "CERTIFICATE_VERIFY_FAILED: certificate revoked" in host.log_tail(), what="that it is said")
    assert {one["state"] for one in shown(host) if one["name"] == "anna"} == {"revoked"}
    assert host.rnx("list").status == 0 and others.is_active()  # nobody else is concerned
    others.cancel()
    assert certs(host, "rotate", "--ca").status == 0
    assert "revoked" in refusal(path).what  # a new authority forgets nothing
    assert rnx(oldest, "list").status == 0  # and its predecessors' clients go on
    again = certs(host, "revoke", "--serial", next(one["serial"] for one in shown(host) if one["name"] == "anna"))
    assert again.status == 0
    assert certs(host, "revoke", "--name", "nobody").status == 1


def test_each_fault_of_a_certificate_is_told_to_the_client_with_what_to_do(host: Host, tmp_path: Path) -> None:
    admin = host.root / "config/rnx-config.yml"
    mine, other = authority_of(host), Authority.create(now())
    old = now() - datetime.timedelta(days=40)

    def pem(pair: KeyPair) -> dict[str, str]:
        return {"cert": pair.certificate, "key": pair.key}

    node = node_of(admin)
    faults: list[tuple[dict[str, str], str, str]] = [
        (pem(mine.issue_client("a", Role.ADMIN, old, days=30)), "certificate expired on", "joblet certs issue"),
        (pem(mine.issue_client("a", Role.ADMIN, now() + datetime.timedelta(days=2))), "is valid from", "clock"),
        (pem(other.issue_client("a", Role.ADMIN, now())), "another authority issued it", "joblet certs issue"),
        (pem(mine.issue_client("a", "guest", now())), "no role", "joblet certs issue"),
        (pem(mine.issue_server(["a"], now())), "is not for clients", "joblet certs issue"),
        ({"key": mine.issue_client("a", Role.ADMIN, now()).key}, "the key is not that of the certificate", "both"),
        ({"key": "x"}, "the key in the configuration cannot be read", "joblet certs issue"),
        ({"cert": "x"}, "the certificate in the configuration cannot be read", "joblet certs issue"),
        ({"ca": "x"}, "the ca in the configuration cannot be read", "ca.crt"),
        ({"ca": other.pair.certificate}, "the daemon's certificate is not trusted", "ca"),
        ({"address": node["address"].replace("127.0.0.1", "127.0.0.2")}, "is not for 127.0.0.2", "--address"),
    ]
    for number, (changes, said, todo) in enumerate(faults):
        error = refusal(copied(admin, tmp_path / f"{number}.yml", **changes))
        assert error.exit_code == 5 and said in error.what and todo in error.todo, (said, str(error))


def test_an_expiry_is_shown_to_client_and_administrator(host: Host, tmp_path: Path) -> None:
    begin = now()
    pair = authority_of(host).issue_client("a", Role.ADMIN, begin, days=10)
    soon = copied(host.root / "config/rnx-config.yml", tmp_path / "soon.yml", cert=pair.certificate, key=pair.key)
    (node,) = json.loads(rnx(soon, "nodes", "--json").out)
    assert node["certificateExpires"][:10] == f"{begin + datetime.timedelta(days=10):%Y-%m-%d}"
    assert "expires in 9 days" in rnx(soon, "nodes").err
    assert rnx(host.root / "config/rnx-config.yml", "nodes").err == ""
    found = joblet("doctor", "--json", "--config", host.config)
    (feature,) = [one for one in json.loads(found.out)["features"] if one["name"] == "certificates"]
    assert feature["available"] and "until" in feature["detail"]


def test_a_server_certificate_that_ends_soon_is_warned_about() -> None:
    with job_host() as host:
        server = authority_of(host).issue_server([], now(), days=10)
        host.configure(lambda content: content["security"].update(serverCert=server.certificate, serverKey=server.key))
        assert joblet("reload", "--config", host.config).status == 0
        assert "expires soon" in host.log_tail() and "joblet certs renew" in host.log_tail()
        assert "joblet certs renew" in joblet("doctor", "--config", host.config).out
        assert certs(host, "renew").out.count("new: ") == 1


def test_a_configuration_without_certificates_gets_its_first(tmp_path: Path) -> None:
    path = tmp_path / "config/joblet-config.yml"
    path.parent.mkdir(mode=0o700)
    path.touch(0o600)
    path.write_text('# ours\nversion: "3.0"\nserver: {port: 5000}\n')
    host = Host(tmp_path)
    made = certs(host, "init", "--address", "jobs.example.org")
    assert made.status == 0, made.err
    assert path.read_text().startswith("# ours\n")
    assert node_of(tmp_path / "config/rnx-config.yml")["address"] == "jobs.example.org:5000"
    assert certs(host, "verify").status == 0
    again = certs(host, "init")
    assert again.status == 1 and "has certificates already" in again.err
    script = Path(__file__).parents[2] / "scripts/certs_gen_embedded.sh"
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "JOBLET_CONFIG_PATH": str(path)}
    before = path.read_text()
    rotated = subprocess.run([script], env=env, capture_output=True, check=True)
    assert b"not running" in rotated.stdout and path.read_text() != before
    whole = tmp_path / "whole/config/joblet-config.yml"
    env |= {"JOBLET_CONFIG_PATH": str(whole), "JOBLET_SERVER_ADDRESS": "jobs.example.org"}
    subprocess.run([script], env=env, stdout=subprocess.DEVNULL, check=True)
    assert node_of(tmp_path / "whole/config/rnx-config.yml")["address"] == "jobs.example.org:50051"
