"""The configuration in force: each key seen at a running daemon, and changed without dropping anybody."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from joblet.api.v1 import job_pb2
from joblet.config.daemon_sections import GrpcSection
from jobletd.services.access import AccessControl
from jobletd.services.server import options
from tests.integration.host import PATIENCE, Ended, Host, eventually, job_host
from tests.integration.joblet_command import joblet
from tests.integration.test_trust import authority_of, client_context, handshake, now

JOB = "apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec: {{command: {command}{more}}}\n"


def job(name: str, command: str = "[sleep, '600']", more: str = "") -> str:
    return JOB.format(name=name, command=command, more=f", {more}" if more else "")


def strict(content: dict[str, Any]) -> None:
    content["joblet"] = {
        "defaultCpuLimit": 50,
        "defaultMemoryLimit": 128,
        "jobTimeout": "1s",
        "maxConcurrentJobs": 1,
        "validateCommands": True,
    }
    content["cgroup"]["enableControllers"] = ["cpu", "memory"]
    content["grpc"] = {"maxRecvMsgSize": "64Ki", "maxHeaderListSize": "8Ki"}


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host(configure=strict) as host:
        yield host


def change(host: Host, edit: Callable[[dict[str, Any]], None]) -> Ended:
    host.configure(edit)
    return joblet("reload", "--config", host.config)


def test_a_job_gets_the_limits_that_it_does_not_name_and_ends_in_time(host: Host) -> None:
    host.apply(job("bounded"))
    run = host.finished("bounded", within=60)
    assert (run.phase, run.reason) == ("FAILED", "TimedOut")
    asked = {limit.name: limit.asked for limit in run.attempts[-1].limits}
    assert asked["cpu"] == "50%" and asked["memory"] == "128Mi"


def test_what_the_configuration_does_not_provide_is_refused(host: Host) -> None:
    with pytest.raises(grpc.RpcError, match=r"there is no command no-such-command .*joblet\.validateCommands"):
        host.apply(job("nothing", "[no-such-command]"))
    host.apply(job("pids", "['true']", "limits: {pids: 5}"))
    run = host.finished("pids")
    assert run.reason == "LimitNotEnforceable" and "cgroup.enableControllers" in run.message


def test_requests_and_metadata_are_bounded(host: Host) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        host.apply(job("large") + "#" * (70 << 10))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(grpc.RpcError) as refused:
        host.jobs.List(job_pb2.ListRequest(), metadata=(("x", "y" * 9000),), timeout=30 * PATIENCE)
    assert refused.value.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
    host.jobs.List(job_pb2.ListRequest(), metadata=(("x", "y" * 4000),), timeout=30 * PATIENCE)


def test_a_reload_changes_what_it_can_names_the_rest_and_drops_nobody(host: Host, tmp_path: Path) -> None:
    stream = host.jobs.Watch(job_pb2.WatchRequest(), timeout=120 * PATIENCE)
    next(iter(stream))
    log = tmp_path / "joblet.log"

    def loosen(content: dict[str, Any]) -> None:
        content["joblet"] = {"maxConcurrentJobs": 2}
        content["isolation"]["allowHostNetwork"] = True
        content["logging"] = {"level": "DEBUG", "format": "json", "output": str(log)}
        content["uploads"] = {"maxFileBytes": "1Mi"}
        content["history"] = {"maxRuns": 5}
        content["server"].update(timeout="30s", port=1, onShutdown="keep")

    with pytest.raises(grpc.RpcError, match=r"isolation\.allowHostNetwork"):
        host.apply(job("hosts", more="isolation: {network: host}"))
    answer = change(host, loosen)
    assert answer.status == 0, answer.err
    in_force, restart = answer.out.splitlines()
    assert "joblet.maxConcurrentJobs" in in_force and "isolation.allowHostNetwork" in in_force
    assert "history.maxRuns" in in_force
    assert restart == "after a restart: server.port"
    for name in ("one", "two"):
        host.apply(job(name, more="isolation: {network: host}"))
        host.running(name)  # two at a time, without an end
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (told,) = [line for line in lines if line["event"] == "reload"]
    assert (told["client"], told["restart"]) == ("root", "server.port")
    assert log.stat().st_mode & 0o777 == 0o640
    log.rename(tmp_path / "old")
    assert host.daemon is not None
    os.kill(host.daemon.pid, signal.SIGHUP)
    eventually(lambda: log.exists() and "SIGHUP" in log.read_text(), what="a log that was opened anew")
    assert next(event for event in stream if event.job.name == "two")  # the connection of before
    stream.cancel()
    assert change(host, lambda content: content["server"].update(onShutdown="stop")).status == 0  # and so it ends


def test_a_reload_of_what_is_wrong_is_refused_as_a_whole(host: Host) -> None:
    before = host.config.read_text()
    try:
        for section, key, value, said in (
            ("joblet", "maxConcurentJobs", 1, "did you mean maxConcurrentJobs?"),
            ("security", "serverKey", "x", "security.serverKey: is no private key"),
            ("logging", "output", "/no/such/directory/x", "logging.output: /no/such"),
        ):

            def spoil(content: dict[str, Any], section: str = section, key: str = key, value: Any = value) -> None:
                content[section][key] = value
                content["isolation"]["allowHostNetwork"] = False

            answer = change(host, spoil)
            assert answer.status == 1 and said in answer.err, answer.err
            host.config.write_text(before)
        host.apply(job("still", "['true']", "isolation: {network: host}"), dry_run=True)
    finally:
        host.config.write_text(before)


def test_an_older_tls_is_accepted_if_the_configuration_says_so(host: Host) -> None:
    context = client_context(authority_of(host).issue_client("admin", "admin", now()))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert handshake(host, context) != ""
    assert change(host, lambda content: content["security"].update(minTlsVersion="1.2")).status == 0
    assert handshake(host, context) == ""
    assert change(host, lambda content: content["security"].update(minTlsVersion="1.3")).status == 0
    assert handshake(host, context) != ""


def test_certificates_in_files_are_read_anew_by_each_reload(host: Host, tmp_path: Path) -> None:
    before = host.config.read_text()
    authority = authority_of(host)
    client = authority.issue_client("checker", "viewer", now())

    def write(**texts: str) -> None:
        for name, text in texts.items():
            (tmp_path / name).touch(0o600)
            (tmp_path / name).write_text(text)

    def by_path(content: dict[str, Any]) -> None:
        names = ("serverCert", "serverKey", "caCert", "clientCert", "clientKey")
        content["security"] = {f"{name}Path": str(tmp_path / name) for name in names}

    try:
        server = authority.issue_server([], now(), days=50)
        write(serverCert=server.certificate, serverKey=server.key, caCert=authority.pair.certificate)
        write(clientCert=client.certificate, clientKey=client.key)
        assert change(host, by_path).status == 0
        server = authority.issue_server([], now(), days=60)
        write(serverCert=server.certificate, serverKey=server.key)
        verified = joblet("certs", "verify", "--config", host.config)
        assert verified.status == 1 and "serves another certificate (joblet reload)" in verified.err
        answer = joblet("reload", "--config", host.config)
        assert answer.out.splitlines()[0] == "in force: security.serverCert, security.serverKey"
        assert "the daemon serves the certificate" in joblet("certs", "verify", "--config", host.config).out
        (tmp_path / "clientCert").write_text("x")  # it is this client that verify calls as
        assert joblet("certs", "verify", "--config", host.config).status == 1
        refused = joblet("certs", "rotate", "--config", host.config)
        assert refused.status == 1 and "joblet reload" in refused.err
    finally:
        host.config.write_text(before)
        assert joblet("reload", "--config", host.config).status == 0


def test_more_connections_than_allowed_are_refused(host: Host) -> None:
    assert change(host, lambda content: content["server"].update(maxConnections=1)).status == 0
    host.jobs.List(job_pb2.ListRequest(), timeout=30 * PATIENCE)
    context = client_context(authority_of(host).issue_client("admin", "admin", now()))
    assert handshake(host, context) != ""
    assert change(host, lambda content: content["server"].update(maxConnections=100)).status == 0
    assert handshake(host, context) == ""


def test_the_commands_say_what_is_in_force_and_what_is_wrong(host: Host) -> None:
    shown = joblet("config", "show", "--json", "--config", host.config, env={"JOBLET_LOG_LEVEL": "error"})
    values = {one["key"]: one for one in json.loads(shown.out)}
    assert values["logging.level"] == {"key": "logging.level", "value": "ERROR", "from": "JOBLET_LOG_LEVEL"}
    assert "PRIVATE KEY" not in shown.out
    assert 'serverKey: "(not shown)"' in joblet("config", "show", "--config", host.config).out
    checked = joblet("config", "check", "--config", host.config)
    assert (checked.status, checked.out) == (0, f"{host.config}: can be used\n")
    before = host.config.read_text()
    try:
        host.config.write_text(before + "filesystem: {tmpDir: /tmp}\n")
        checked = joblet("config", "check", "--config", host.config)
        assert checked.status == 0 and "filesystem.tmpDir: has no effect here" in checked.err
        host.config.write_text(before.replace("security:", "securty:"))
        checked = joblet("config", "check", "--config", host.config)
        assert checked.status == 1 and "did you mean security?" in checked.err
    finally:
        host.config.write_text(before)
    assert json.loads(joblet("config", "schema").out)["properties"]["grpc"]


# --- parts alone ------------------------------------------------------------------------------------------------------


def serving(tmp_path: Path, bounds: GrpcSection, call_seconds: float) -> tuple[Any, str]:
    import asyncio

    class Slow(health.aio.HealthServicer):  # type: ignore[misc]
        async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
            await asyncio.Event().wait()

    access = AccessControl(lambda peer: None, call_seconds=call_seconds)
    server = grpc.aio.server(interceptors=[access], options=options(bounds))
    health_pb2_grpc.add_HealthServicer_to_server(Slow(), server)
    server.add_insecure_port(f"unix:{tmp_path}/s")
    return server, f"{tmp_path}/s"


def test_a_call_that_takes_too_long_is_ended_and_told_which_key_says_so(tmp_path: Path) -> None:
    import asyncio

    async def scene() -> None:
        server, path = serving(tmp_path, GrpcSection(), 0.05)
        await server.start()
        async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30 * PATIENCE)
        assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "server.timeout" in (refused.value.details() or "")
        await server.stop(0)

    asyncio.run(scene())


def test_a_client_that_does_not_answer_loses_its_connection(tmp_path: Path) -> None:
    import asyncio

    async def scene() -> None:
        bounds = GrpcSection.model_validate({"keepAliveTime": "100ms", "keepAliveTimeout": "100ms"})
        server, path = serving(tmp_path, bounds, 60)
        await server.start()
        with socket.socket(socket.AF_UNIX) as silent:
            silent.setblocking(False)
            silent.connect(path)
            silent.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))  # and empty settings
            async with asyncio.timeout(30 * PATIENCE):
                while await asyncio.get_running_loop().sock_recv(silent, 4096):
                    pass
        await server.stop(0)

    asyncio.run(scene())
