"""Who is let in, who is not, and that each refusal names the peer."""

from __future__ import annotations

import datetime
import os
import signal
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from ruamel.yaml import YAML

from joblet.api.v1 import job_pb2, job_pb2_grpc, node_pb2, node_pb2_grpc
from joblet.pki import Authority, KeyPair
from tests.integration.host import PATIENCE, Host, eventually, job_host

JOB = "apiVersion: joblet/v1\nkind: Job\nmetadata: {name: quiet}\nspec: {command: [echo, heard]}\n"
DENIED = grpc.StatusCode.PERMISSION_DENIED


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host() as host:
        host.apply(JOB)
        host.finished("quiet")
        yield host


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def authority_of(host: Host) -> Authority:
    config = host.root / "config"
    return Authority(KeyPair((config / "ca.crt").read_text(), (config / "ca.key").read_text()))


def address_of(host: Host) -> tuple[str, int]:
    return "127.0.0.1", int((host.root / "run/port").read_text())


def channel_with(host: Host, pair: KeyPair) -> grpc.Channel:
    credentials = grpc.ssl_channel_credentials(
        (host.root / "config/ca.crt").read_bytes(), pair.key.encode(), pair.certificate.encode()
    )
    return grpc.secure_channel("{}:{}".format(*address_of(host)), credentials)


def refusal_after(host: Host, attempt: Callable[[], Any]) -> str:
    """What the daemon's log gained by a refused connection."""
    log = host.root / "daemon.log"
    before = len(log.read_text())
    attempt()
    return eventually(
        lambda: next((line for line in log.read_text()[before:].splitlines() if "refused" in line), ""),
        what="a refusal",
    )


def handshake(host: Host, context: ssl.SSLContext) -> str:
    """Try a handshake; the kernel's or TLS's own word when it fails, empty if the server answered."""
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection(address_of(host), timeout=10 * PATIENCE) as plain,
            context.wrap_socket(plain) as secure,
        ):
            # TLS 1.3 tells the client of a refusal with the first read.
            return "" if secure.recv(1) else "closed"
    except OSError as error:
        return str(error) or type(error).__name__


def client_context(pair: KeyPair | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if pair is not None:
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(pair.certificate + pair.key)
            file.flush()
            context.load_cert_chain(file.name)
    return context


def test_a_viewer_may_read(host: Host) -> None:
    viewer = host.client("viewer")
    assert [job.name for job in viewer.List(job_pb2.ListRequest()).jobs] == ["quiet"]
    assert viewer.Get(job_pb2.GetRequest(ref="quiet")).runs[0].phase == "COMPLETED"
    entries = [entry for batch in viewer.Logs(job_pb2.LogsRequest(ref="quiet")) for entry in batch.entries]
    assert [entry.data for entry in entries] == [b"heard\n"]
    assert next(event.reason for event in viewer.Events(job_pb2.EventsRequest(ref="quiet"))) == "Created"


@pytest.mark.parametrize(
    ("method", "request_message"),
    [
        ("Apply", job_pb2.ApplyRequest(manifest=JOB.encode())),
        ("Apply", job_pb2.ApplyRequest(manifest=JOB.encode(), dry_run=True)),
        ("Run", job_pb2.RunRequest(name="quiet")),
        ("Stop", job_pb2.StopRequest(ref="quiet")),
        ("Delete", job_pb2.DeleteRequest(name="quiet")),
    ],
)
def test_a_viewer_may_not_write(host: Host, method: str, request_message: Any) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        getattr(host.client("viewer"), method)(request_message)
    assert refused.value.code() is DENIED
    assert "needs the role admin" in (refused.value.details() or "")
    assert "peer=127.0.0.1:" in host.log_tail()


def test_a_certificate_of_another_role_may_nothing(host: Host) -> None:
    pair = authority_of(host).issue_client("guest", "guest", now())
    with channel_with(host, pair) as channel, pytest.raises(grpc.RpcError) as refused:
        job_pb2_grpc.JobServiceStub(channel).List(job_pb2.ListRequest())
    assert refused.value.code() is DENIED


def test_no_certificate_is_refused(host: Host) -> None:
    line = refusal_after(host, lambda: handshake(host, client_context(None)))
    assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in line and "127.0.0.1:" in line


def test_a_certificate_of_another_authority_is_refused(host: Host) -> None:
    pair = Authority.create(now()).issue_client("admin", "admin", now())
    line = refusal_after(host, lambda: handshake(host, client_context(pair)))
    assert "CERTIFICATE_VERIFY_FAILED" in line and "127.0.0.1:" in line


def test_an_expired_certificate_is_refused(host: Host) -> None:
    long_ago = now() - datetime.timedelta(days=400)
    pair = authority_of(host).issue_client("admin", "admin", long_ago, days=30)
    line = refusal_after(host, lambda: handshake(host, client_context(pair)))
    assert "certificate has expired" in line


def test_tls_1_2_is_refused(host: Host) -> None:
    context = client_context(authority_of(host).issue_client("admin", "admin", now()))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    line = refusal_after(host, lambda: handshake(host, context))
    assert "UNSUPPORTED_PROTOCOL" in line and "127.0.0.1:" in line


def test_without_tls_there_is_no_answer(host: Host) -> None:
    with grpc.insecure_channel("{}:{}".format(*address_of(host))) as channel, pytest.raises(grpc.RpcError) as refused:
        job_pb2_grpc.JobServiceStub(channel).List(job_pb2.ListRequest(), timeout=5 * PATIENCE)
    assert refused.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def test_root_on_the_host_needs_no_certificate(host: Host) -> None:
    with grpc.insecure_channel(f"unix:{host.root}/run/joblet.sock") as channel:
        assert node_pb2_grpc.NodeServiceStub(channel).GetNode(node_pb2.GetNodeRequest()).cgroup_mode
    assert (host.root / "run").stat().st_mode & 0o777 == 0o700


def test_keys_are_readable_by_their_owner_alone(host: Host) -> None:
    for name in ("joblet-config.yml", "rnx-config.yml", "rnx-config-viewer.yml", "ca.key"):
        assert (host.root / "config" / name).stat().st_mode & 0o777 == 0o600
    assert (host.root / "config").stat().st_mode & 0o777 == 0o700
    key = YAML(typ="safe").load(host.config.read_text())["security"]["serverKey"].splitlines()[1]
    assert key not in (host.root / "daemon.log").read_text()


def test_health_and_reflection_answer(host: Host) -> None:
    host.client("viewer")
    channel = host.channels["viewer"]
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (services,) = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]))
    assert "joblet.v1.JobService" in [service.name for service in services.list_services_response.service]


def test_an_invalid_manifest_is_answered_with_places(host: Host) -> None:
    from google.rpc import error_details_pb2
    from grpc_status import rpc_status

    text = "apiVersion: joblet/v1\nkind: Job\nmetadata: {name: bad}\nspec: {comand: [x], limits: {memory: 12Q}}\n"
    with pytest.raises(grpc.RpcError) as refused:
        host.apply(text, filename="bad.yml")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = rpc_status.from_call(refused.value)
    request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(request) for detail in status.details if detail.Is(request.DESCRIPTOR))
    assert {violation.field for violation in request.field_violations} >= {"spec.comand", "spec.limits.memory"}
    assert all(violation.description.startswith("bad.yml:4:") for violation in request.field_violations)


def test_an_unknown_job_is_answered_with_the_nearest_name(host: Host) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        host.job("quite")
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert "quiet" in (refused.value.details() or "")


def test_a_reload_takes_new_certificates_and_drops_nobody() -> None:
    with job_host() as host:
        stream = host.jobs.Watch(job_pb2.WatchRequest(), timeout=60 * PATIENCE)
        assert next(iter(stream)).type == job_pb2.WatchEvent.SYNCED
        server = authority_of(host).issue_server(["renewed.example"], now())

        yaml = YAML()
        content = yaml.load(host.config.read_text())
        content["security"].update(serverCert=server.certificate, serverKey=server.key)
        with host.config.open("w") as file:
            yaml.dump(content, file)
        assert host.daemon is not None
        os.kill(host.daemon.pid, signal.SIGHUP)
        eventually(lambda: "security.serverCert, security.serverKey" in host.log_tail(), what="the reload")
        pair = authority_of(host).issue_client("admin", "admin", now())
        context = client_context(pair)
        context.load_verify_locations(cadata=(host.root / "config/ca.crt").read_text())
        with (
            socket.create_connection(address_of(host), timeout=10 * PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname="renewed.example"),
        ):
            pass
        # The old connection still hears of changes.
        host.apply(JOB)
        assert next(event for event in stream if event.job.name == "quiet")
        stream.cancel()


def test_a_configuration_that_others_can_read_is_refused(tmp_path: Path) -> None:
    host = Host(tmp_path / "root")
    host.init()
    host.config.chmod(0o644)
    with pytest.raises(AssertionError, match="chmod 600"):
        host.start()
