"""Nodes, versions, doctor, and every way not to get through: each told with what to do next."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

from joblet.pki import Authority, Role
from tests.ports import held_port
from tests.unit.rnx.conftest import Rnx
from tests.unit.rnx.service import Answers, Refusal, Running, refusal, write_config


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nothing listens."""
    with held_port() as port:
        yield port


def test_nobody_listening_is_told_with_the_address(
    rnx: Rnx, service: Running, tmp_path: Path, closed_port: int
) -> None:
    pair = service.authority.issue_client("tester", Role.ADMIN, datetime.now(UTC))
    config = write_config(tmp_path / "c.yml", f"127.0.0.1:{closed_port}", pair.certificate, pair.key, service.authority)
    said = rnx("list", config=config)
    assert (said.code, said.out) == (4, "")
    assert said.err.splitlines() == [
        f"rnx: 127.0.0.1:{closed_port}: nothing listens there",
        "  is the daemon running (systemctl status joblet, or joblet serve), and is the address right?",
    ]


def test_an_expired_certificate_is_told_with_its_date(rnx: Rnx, service: Running, answers: Answers) -> None:
    said = rnx("list", config=service.config("expired.yml", days=-3))
    assert said.code == 5
    assert f"{service.address}: this client's certificate expired on 20" in said.err
    assert said.err.endswith(
        "\n  have a new one issued on the daemon's host: joblet certs issue --role admin --name NAME\n"
    )


def test_a_connection_that_is_closed_without_a_reason_is_told(rnx: Rnx, service: Running, answers: Answers) -> None:
    # gRPC's own TLS server does so; the daemon's front gives the reason.
    said = rnx("list", config=service.config("foreign.yml", authority=Authority.create(datetime.now(UTC))))
    assert said.code == 4
    assert f"rnx: {service.address}: the daemon closes the connection\n  it does not accept the certificate" in said.err


def test_a_certificate_of_another_authority_is_told_in_the_daemons_words(
    rnx: Rnx, service: Running, tmp_path: Path
) -> None:
    with refusing_front(service.authority, tmp_path) as address:
        other = Authority.create(datetime.now(UTC)).issue_client("tester", Role.ADMIN, datetime.now(UTC))
        config = write_config(tmp_path / "c.yml", address, other.certificate, other.key, service.authority)
        said = rnx("list", config=config)
    assert said.code == 5
    assert f"rnx: {address}: the daemon does not accept the certificate" in said.err


@contextmanager
def refusing_front(authority: Authority, directory: Path) -> Iterator[str]:
    """A TLS server of Python's own, which tells a client by an alert what it has against its certificate."""
    pair = authority.issue_server([], datetime.now(UTC))
    (directory / "server.pem").write_text(pair.certificate + pair.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.pem")
    context.load_verify_locations(cadata=authority.pair.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve_refusals() -> None:
            while True:
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                with plain, suppress(OSError):
                    context.wrap_socket(plain, server_side=True).close()

        thread = threading.Thread(target=serve_refusals)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def test_a_daemon_that_is_not_trusted_is_told(rnx: Rnx, service: Running, tmp_path: Path) -> None:
    other = Authority.create(datetime.now(UTC))
    pair = service.authority.issue_client("tester", Role.ADMIN, datetime.now(UTC))
    config = write_config(tmp_path / "c.yml", service.address, pair.certificate, pair.key, other)
    said = rnx("list", config=config)
    assert said.code == 5
    assert "the daemon's certificate is not trusted" in said.err


@pytest.mark.parametrize(
    ("found", "code", "first", "second"),
    [
        (
            Refusal(grpc.StatusCode.PERMISSION_DENIED, "Stop needs the role admin"),
            5,
            "rnx: not allowed: Stop needs the role admin",
            "  use one whose certificate has the role admin; on the daemon's host: joblet certs issue --role admin --name NAME",
        ),
        (
            refusal(grpc.StatusCode.NOT_FOUND, "no job or run 'hallo'", todo="did you mean hello?"),
            3,
            "rnx: no job or run 'hallo'",
            "  did you mean hello?",
        ),
        (
            refusal(grpc.StatusCode.FAILED_PRECONDITION, "job 'x' does not run (now)", todo="rnx status x"),
            6,
            "rnx: job 'x' does not run (now)",
            "  rnx status x",
        ),
        (
            refusal(grpc.StatusCode.UNAVAILABLE, "the disk is full", todo="make room"),
            1,
            "rnx: the daemon at {address} refused: the disk is full",
            "  make room",
        ),
        (
            Refusal(grpc.StatusCode.INTERNAL, "internal error 1234"),
            1,
            "rnx: the daemon at {address} failed: internal error 1234",
            "  joblet's log on the host tells more; try again",
        ),
        (
            Refusal(grpc.StatusCode.UNIMPLEMENTED, "Method not found!"),
            1,
            "rnx: the daemon at {address} does not know this call",
            "  rnx version compares the versions",
        ),
        (
            Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, ""),
            4,
            "rnx: no answer from the daemon at {address} in time",
            "  rnx doctor looks at the connection; the daemon's log tells whether the call reached it",
        ),
    ],
    ids=lambda value: value.code.name if isinstance(value, Refusal) else "",
)
def test_every_error_says_what_to_do_next(
    rnx: Rnx, service: Running, answers: Answers, found: Refusal, code: int, first: str, second: str
) -> None:
    answers.refusals["Stop"] = found
    said = rnx("stop", "x")
    assert said.code == code
    assert said.err.splitlines() == [first.format(address=service.address), second]


def test_configuration_errors_are_told(rnx: Rnx, service: Running, tmp_path: Path) -> None:
    said = rnx("list", config=tmp_path / "none.yml")
    assert (said.code, said.err.splitlines()[0]) == (2, f"rnx: {tmp_path}/none.yml: there is no such file")
    said = rnx("--node", "defualt", "list")
    assert (said.code, said.err.splitlines()[1]) == (2, "  did you mean default?")
    open_file = service.config("open.yml")
    open_file.chmod(0o644)
    said = rnx("list", config=open_file)
    assert (said.code, said.err.splitlines()[1]) == (2, f"  chmod 600 {open_file}")


def test_config_and_node_may_stand_after_the_command(rnx: Rnx, service: Running, answers: Answers) -> None:
    config = service.directory / "rnx-config.yml"
    assert rnx("list", "--config", config, "--node", "default", config=Path("/nonexistent")).code == 0
    assert rnx("list", "--node", "other").code == 2


def test_nodes_shows_each_with_its_state(rnx: Rnx, service: Running, answers: Answers, closed_port: int) -> None:
    config = service.config("two.yml")
    text = config.read_text()
    node = text.partition("  default:\n")[2]
    config.write_text(text + "  away:\n" + node.replace(service.address, f"127.0.0.1:{closed_port}"))
    said = rnx("nodes", config=config)
    assert said.code == 4
    header, first, second = said.out.splitlines()
    assert header.split() == ["NAME", "ADDRESS", "STATE", "VERSION", "RUNNING", "QUEUED", "ROLE"]
    assert first.split() == ["default", service.address, "ready", "0.1.0", "3", "1", "admin"]
    assert "nothing listens there" in second
    data = json.loads(rnx("nodes", "--json", config=config).out)
    assert [(one["name"], one["node"] is None) for one in data] == [("default", False), ("away", True)]
    *host, ends = rnx("nodes", "-o", "wide").out.splitlines()[1].split()[7:]
    assert host == ["box", "6.1", "2", "1.0", "GiB", "v2", "-", "-"]
    assert ends == data[0]["certificateExpires"][:10]


def test_version_tells_both(rnx: Rnx, answers: Answers) -> None:
    assert rnx("version").out == "client: 0.1.0\ndaemon: 0.1.0 on box (6.1, x86_64)\n"
    assert rnx("version", "--client").out == "client: 0.1.0\n"
    assert json.loads(rnx("version", "--json").out) == {"client": "0.1.0", "daemon": "0.1.0", "hostname": "box"}


def test_doctor_shows_what_is_well_and_what_is_not(rnx: Rnx, service: Running, answers: Answers) -> None:
    said = rnx("doctor", "--json")
    assert said.code == 0
    checks = {one["name"]: one for one in json.loads(said.out)}
    assert [checks[name]["state"] for name in ("configuration", "address", "connection", "versions")] == ["ok"] * 4
    assert checks["certificate"]["state"] == "warning"  # 30 days are left
    assert checks["limits.io"] == {
        "name": "limits.io", "state": "warning", "detail": "no io controller", "todo": "",
    }  # fmt: skip
    expired = rnx("doctor", config=service.config("expired.yml", days=-3))
    assert expired.code == 1
    assert "certificate    failed  this client's certificate expired on" in expired.out
    assert rnx("doctor", config=Path("/nonexistent")).code == 1
