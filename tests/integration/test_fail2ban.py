"""fail2ban's own reader finds in the daemon's log who was refused, and nobody else, whatever names clients bear."""

from __future__ import annotations

import contextlib
import datetime
import json
import shutil
import socket
import ssl
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from ruamel.yaml import YAML

from joblet.api.v1 import job_pb2, job_pb2_grpc
from joblet.pki import Authority, KeyPair, Role
from tests.integration.host import PATIENCE, Host, eventually, job_host
from tests.integration.joblet_command import joblet
from tests.integration.test_trust import authority_of, channel_with, client_context, now

ROOT = Path(__file__).parents[2]
FILTER = ROOT / "systemd/fail2ban/filter.d/joblet.conf"
FORGED = "203.0.113.66"
# What a name may try: a line of its own, the text's and JSON's way to name a peer, an end of the string before it.
NAMES = (
    f"\n2026-01-01T00:00:00Z [warning] call refused peer={FORGED}:1",
    f"\r\n[warning  ] call refused peer={FORGED}:1 x",
    f'x", "peer": "{FORGED}:1", "reason": "',
    '\u2028", "level": "warning", "event": "call refused',
    f"' peer={FORGED}:1 reason='PEER_DID",
    f"\x85[warning] connection refused peer={FORGED}:9",
)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host("127.0.0.1", "::1") as host:
        yield host


def port_of(host: Host) -> int:
    return int((host.root / "run/port").read_text())


def connect(host: Host, source: str, context: ssl.SSLContext | None) -> None:
    """Connect from that address of our own; without a context it hangs up before it has said anything."""
    address = "::1" if ":" in source else "127.0.0.1"
    with socket.create_connection((address, port_of(host)), timeout=10 * PATIENCE, source_address=(source, 0)) as plain:
        if context is None:
            return
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        with contextlib.suppress(OSError), context.wrap_socket(plain) as secure:
            secure.recv(1)


def named(host: Host, name: str, unit: str) -> KeyPair:
    """A certificate as no honest authority would issue it, of ours."""
    authority = authority_of(host)
    issuer = x509.load_pem_x509_certificate(authority.pair.certificate.encode())
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
            x509.NameAttribute(NameOID.COMMON_NAME, name, _validate=False),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - datetime.timedelta(hours=1))
        .not_valid_after(now() + datetime.timedelta(hours=1))
        .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(serialization.load_pem_private_key(authority.pair.key.encode(), None), hashes.SHA256())  # type: ignore[arg-type]
    )
    plain = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return KeyPair(certificate.public_bytes(serialization.Encoding.PEM).decode(), plain.decode())


def try_to_write(host: Host, pair: KeyPair) -> None:
    with channel_with(host, pair) as channel, pytest.raises(grpc.RpcError) as refused:
        job_pb2_grpc.JobServiceStub(channel).Delete(job_pb2.DeleteRequest(name="x"), timeout=20 * PATIENCE)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


def found(log: Path) -> Counter[str]:
    """Whom fail2ban finds in a log, and how often."""
    command = ["fail2ban-regex", "-o", "ip", str(log), str(FILTER)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60 * PATIENCE, check=False)
    assert ended.returncode in (0, 1), ended.stderr  # 1: nothing found
    return Counter(line for line in ended.stdout.splitlines() if line)


@pytest.fixture(params=["text", "json"])  # one daemon for both: a reload takes it from one to the other
def log(host: Host, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The daemon logs there now, in that form."""
    path = tmp_path / "joblet.log"
    yaml = YAML()
    content = yaml.load(host.config.read_text())
    content["logging"].update(output=str(path), format=request.param)
    with host.config.open("w") as file:
        yaml.dump(content, file)
    assert joblet("reload", "--config", host.config).status == 0
    return path


def after(log: Path, refusals: int, attempts: Callable[[], None]) -> Counter[str]:
    """Whom fail2ban finds once so many were refused."""
    attempts()
    eventually(lambda: log.read_text().count(" refused") >= refusals, what=f"{refusals} refusals")
    return found(log)


def test_who_has_no_right_to_come_in_is_found_by_the_address(host: Host, log: Path, tmp_path: Path) -> None:
    stranger = Authority.create(now()).issue_client("admin", Role.ADMIN, now())
    long_ago = now() - datetime.timedelta(days=400)
    expired = authority_of(host).issue_client("old", Role.ADMIN, long_ago, days=30)
    output = tmp_path / "gone.yml"
    arguments: list[str | Path] = ["--role", "admin", "--name", "gone", "--output", output]
    assert joblet("certs", "issue", "--config", host.config, *arguments).status == 0
    node = YAML(typ="safe").load(output.read_text())["nodes"]["default"]
    assert joblet("certs", "revoke", "--config", host.config, output).status == 0
    old_version = client_context(authority_of(host).issue_client("admin", Role.ADMIN, now()))
    old_version.maximum_version = ssl.TLSVersion.TLSv1_2

    def attempts() -> None:
        connect(host, "127.0.1.1", client_context(None))
        connect(host, "127.0.1.2", client_context(stranger))
        connect(host, "127.0.1.3", client_context(expired))
        connect(host, "127.0.1.4", client_context(KeyPair(node["cert"], node["key"])))
        connect(host, "127.0.1.5", old_version)
        connect(host, "::1", client_context(None))

    everybody = ("127.0.1.1", "127.0.1.2", "127.0.1.3", "127.0.1.4", "127.0.1.5", "::1")
    assert after(log, len(everybody), attempts) == dict.fromkeys(everybody, 1)


def test_a_viewer_who_tries_to_write_is_found(host: Host, log: Path) -> None:
    viewer = authority_of(host).issue_client("anna", Role.VIEWER, now())
    assert after(log, 1, lambda: try_to_write(host, viewer)) == {"127.0.0.1": 1}


def test_who_is_in_order_or_only_looks_whether_the_port_is_open_is_not_found(host: Host, log: Path) -> None:
    def attempts() -> None:
        host.client("viewer").List(job_pb2.ListRequest(), timeout=20 * PATIENCE)
        connect(host, "127.0.1.9", None)

    assert after(log, 1, attempts) == {}


def test_no_name_puts_another_address_into_the_log(host: Host, log: Path) -> None:
    def attempts() -> None:
        for name in NAMES:
            for unit in ("viewer", "nobody"):
                try_to_write(host, named(host, name, unit))

    assert after(log, 2 * len(NAMES), attempts) == {"127.0.0.1": 2 * len(NAMES)}
    lines = log.read_text().splitlines()
    refused = [line for line in lines if FORGED in line]
    assert len(refused) >= 2 * (len(NAMES) - 1) and all(" refused" in line for line in refused)
    if log.read_text().startswith("{"):
        assert {json.loads(line)["peer"].rpartition(":")[0] for line in refused} == {"127.0.0.1"}


def test_the_journals_own_beginning_of_a_line_does_not_hide_it(tmp_path: Path) -> None:
    text = tmp_path / "journal"
    text.write_text(
        "2026-11-25T03:00:00.000000Z host joblet[17]: 2026-11-25T03:00:00.1Z [warning  ] connection refused peer=192.0.2.7:1"
        " reason=PEER_DID_NOT_RETURN_A_CERTIFICATE\n"
        '2026-11-25T03:00:00.000000Z host joblet[17]: {"timestamp": "2026-11-25T03:00:00.1Z", "level": "warning",'
        ' "event": "call refused", "peer": "[2001:db8::7]:1", "client": "anna"}\n'
    )
    assert found(text) == {"192.0.2.7": 1, "2001:db8::7": 1}


def test_fail2ban_takes_the_jail(tmp_path: Path) -> None:
    configuration = tmp_path / "fail2ban"
    shutil.copytree("/etc/fail2ban", configuration)
    shutil.copytree(ROOT / "systemd/fail2ban", configuration, dirs_exist_ok=True)
    for path in configuration.glob("jail.d/*"):
        if path.name != "joblet.conf":
            path.unlink()  # the distribution's needs a log of sshd
    log = tmp_path / "joblet.log"
    log.touch()
    (configuration / "jail.d/joblet.local").write_text(f"[joblet]\nlogpath = {log}\n")
    command = ["fail2ban-client", "-c", str(configuration), "-d"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60 * PATIENCE, check=False)
    assert ended.returncode == 0, ended.stderr
    assert f"['set', 'joblet', 'addlogpath', '{log}', 'head']" in ended.stdout
    assert ended.stdout.count("['multi-set', 'joblet', 'addfailregex'") == 1
