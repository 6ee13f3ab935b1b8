"""``joblet serve`` as a service: its start, what stops it from starting, its signals, and who is root to it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from ruamel.yaml import YAML

from joblet.api.channel import open_channel
from joblet.api.v1 import job_pb2, job_pb2_grpc, node_pb2, node_pb2_grpc
from joblet.config import NodeConfig
from joblet.pki import Authority
from tests.integration.host import BIN, PATIENCE, Host, dispose, eventually, job_host
from tests.integration.test_trust import address_of, now

SLEEPER = "apiVersion: joblet/v1\nkind: Job\nmetadata: {name: sleeper}\nspec: {command: [sleep, '300']}\n"


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host() as host:
        yield host


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory whose path leaves room for the sockets' names."""
    path = Path(tempfile.mkdtemp(prefix=f"joblet-test-{os.getpid()}-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def prepared(directory: Path) -> Host:
    host = Host(directory / f"{os.getpid()}-serve")  # its cgroups have that name too
    host.init()
    return host


def serve(config: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A daemon that is expected to end by itself."""
    return subprocess.run(
        [BIN / "joblet", "serve", "--config", config],
        capture_output=True,
        text=True,
        timeout=60 * PATIENCE,
        check=False,
        env={**os.environ, **environment},
    )


def change(config: Path, **sections: dict[str, Any]) -> Path:
    """A copy of a configuration with other values."""
    yaml = YAML()
    content = yaml.load(config.read_text())
    for name, values in sections.items():
        content[name].update(values)
    copy = config.parent / f"changed-{len(list(config.parent.iterdir()))}.yml"
    copy.touch(0o600)
    with copy.open("w") as file:
        yaml.dump(content, file)
    return copy


def test_a_second_daemon_on_the_same_root_is_refused_and_the_first_one_goes_on(host: Host) -> None:
    second = serve(host.config)
    assert second.returncode == 1
    assert "another daemon runs on these directories (stop it first)" in second.stderr
    assert "Traceback" not in second.stderr
    host.jobs.List(job_pb2.ListRequest(), timeout=30 * PATIENCE)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"security": {"serverKey": "x"}}, "security.serverKey: is no private key"),
        ({"security": {"serverCert": "x"}}, "security.serverCert: is no certificate"),
        ({"security": {"caCert": "x"}}, "security.caCert: is no certificate"),
        ({"run": {"directory": f"/tmp/{'x' * 120}"}}, "is too long for the sockets in it"),
        ({"run": {"directory": "/proc/none"}}, "/proc/none: No such file or directory"),
        ({"server": {"address": "203.0.113.1"}}, "203.0.113.1:0: cannot listen: Cannot assign requested address"),
        ({"server": {"address": "a..b"}}, "a..b:0: cannot listen: is no host name or address"),
    ],
)
def test_what_stops_the_start_is_one_clear_line_and_status_1(short: Path, sections: Any, said: str) -> None:
    ended = serve(change(prepared(short).config, **sections))
    assert ended.returncode == 1
    assert said in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


def test_a_port_that_is_taken_is_named_with_the_way_out(short: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = serve(change(prepared(short).config, server={"port": port}))
    assert ended.returncode == 1
    assert (
        f"127.0.0.1:{port}: cannot listen: Address already in use (choose another server.address or server.port"
        in ended.stderr
    )


def test_a_configuration_that_is_not_there_is_answered_with_what_makes_one(tmp_path: Path) -> None:
    ended = serve(tmp_path / "none.yml")
    assert (ended.returncode, "joblet init --root DIR makes one" in ended.stderr) == (1, True)


@contextmanager
def notifications(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        receiver.settimeout(30 * PATIENCE)
        yield receiver, path


def test_systemd_hears_of_the_start_and_of_the_end(tmp_path: Path) -> None:
    with notifications(tmp_path) as (receiver, path), job_host() as host:
        host.stop()
        host.environment["NOTIFY_SOCKET"] = path
        host.start()
        assert receiver.recv(100) == b"READY=1"
        assert host.stop() == 0
        assert receiver.recv(100) == b"STOPPING=1"


def test_a_log_in_json_is_json_on_every_line(tmp_path: Path) -> None:
    with notifications(tmp_path) as (receiver, path), job_host() as host:
        host.stop()
        environment = {**os.environ, "JOBLET_LOG_FORMAT": "json", "NOTIFY_SOCKET": path}
        log = tmp_path / "log"
        with log.open("w") as file:
            host.daemon = subprocess.Popen(
                [BIN / "joblet", "serve", "--config", host.config], stderr=file, text=True, env=environment
            )
        assert receiver.recv(100) == b"READY=1"
        host.use_actual_port()
        with pytest.raises(grpc.RpcError):
            host.client("viewer").Delete(job_pb2.DeleteRequest(name="x"), timeout=30 * PATIENCE)
        assert host.stop() == 0
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        ready = next(line for line in lines if line["event"] == "ready")
        assert ready["address"].startswith("127.0.0.1:") and not ready["address"].endswith(":0")
        refused = next(line for line in lines if line["event"] == "call refused")
        assert refused["peer"].startswith("127.0.0.1:") and refused["client"] == "viewer"


def test_a_reload_of_a_broken_configuration_is_refused_and_ends_nothing() -> None:
    with job_host() as host:
        good = host.config.read_text()
        assert host.daemon is not None
        for bad in ("version: [", good.replace("serverKey", "serverKye"), good.replace("BEGIN PRIVATE", "BEGIN")):
            before = len((host.root / "daemon.log").read_text())
            host.config.write_text(bad)
            host.daemon.send_signal(signal.SIGHUP)
            eventually(
                lambda before=before: "reload refused" in (host.root / "daemon.log").read_text()[before:],  # type: ignore[misc]
                what="the refusal",
            )
            host.jobs.List(job_pb2.ListRequest(), timeout=30 * PATIENCE)
        host.config.write_text(good)


def test_a_reload_shows_the_new_certificates_end() -> None:
    with job_host() as host:
        authority = Authority.create(now())
        pair = authority.issue_server([], now(), days=3)
        host.client()  # opens the channel
        before = expiry(host)
        yaml = YAML()
        content = yaml.load(host.config.read_text())
        content["security"].update(serverCert=pair.certificate, serverKey=pair.key)
        with host.config.open("w") as file:
            yaml.dump(content, file)
        assert host.daemon is not None
        host.daemon.send_signal(signal.SIGHUP)
        eventually(lambda: expiry(host) != before, what="the new certificate's end")
        # Neither does it hide that clients will refuse what the CA of the configuration did not issue.
        eventually(lambda: "another authority issued it" in host.daemon_log.read_text(), what="that it is said")


def expiry(host: Host) -> int:
    stub = node_pb2_grpc.NodeServiceStub(host.channels["admin"])
    seconds: int = stub.GetNode(node_pb2.GetNodeRequest(), timeout=60 * PATIENCE).certificate_expires.seconds
    return seconds


def test_a_node_tells_what_it_is_and_which_limits_it_can_enforce(host: Host) -> None:
    host.client("viewer")
    stub = node_pb2_grpc.NodeServiceStub(host.channels["viewer"])
    node = stub.GetNode(node_pb2.GetNodeRequest(), timeout=60 * PATIENCE)
    assert (node.hostname, node.kernel) == (socket.gethostname(), os.uname().release)
    features = {feature.name: feature for feature in node.features}
    assert {"limits.cpu", "limits.memory", "limits.pids"} <= features.keys()
    assert all(feature.available or feature.detail for feature in node.features)


def test_a_viewer_stays_one_below_a_root_directory_with_an_odd_name(short: Path) -> None:
    host = prepared(short / "a root%20")
    try:
        host.start()
        with pytest.raises(grpc.RpcError) as refused:
            host.client("viewer").Apply(job_pb2.ApplyRequest(manifest=SLEEPER.encode()), timeout=30 * PATIENCE)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        host.client("viewer").List(job_pb2.ListRequest(), timeout=30 * PATIENCE)
        local = NodeConfig("here", f"unix:{host.root}/run/joblet.sock")
        with open_channel(local) as channel:
            job_pb2_grpc.JobServiceStub(channel).Apply(job_pb2.ApplyRequest(manifest=SLEEPER.encode(), dry_run=True))
    finally:
        dispose(host)


def test_with_the_policy_keep_jobs_outlive_the_daemon_and_are_found_again() -> None:
    def keep(content: dict[str, Any]) -> None:
        content["server"]["onShutdown"] = "keep"

    with job_host(configure=keep) as host:
        host.apply(SLEEPER)
        run = host.running("sleeper")
        assert host.stop() == 0
        host.start()
        again = host.running("sleeper")
        assert (again.id, len(again.attempts)) == (run.id, 1)
        host.jobs.Delete(job_pb2.DeleteRequest(name="sleeper"), timeout=30 * PATIENCE)
        eventually(lambda: not host.jobs.List(job_pb2.ListRequest()).jobs, what="the end of the job")


def test_a_hundred_connections_at_once_all_get_their_answer(host: Host) -> None:
    node = YAML(typ="safe").load((host.root / "config/rnx-config.yml").read_text())["nodes"]["default"]
    credentials = grpc.ssl_channel_credentials(*(node[key].encode() for key in ("ca", "key", "cert")))

    async def call(number: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("test", number)]
        async with grpc.aio.secure_channel("{}:{}".format(*address_of(host)), credentials, options) as channel:
            await job_pb2_grpc.JobServiceStub(channel).List(job_pb2.ListRequest(), timeout=60 * PATIENCE)

    async def all_at_once() -> None:
        await asyncio.gather(*(call(number) for number in range(100)))

    asyncio.run(all_at_once())
    eventually(lambda: not list((host.root / "run/peers").iterdir())[3:], what="the connections' end")
