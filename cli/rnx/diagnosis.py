"""Why a node cannot be talked to: address, TCP, the certificates' dates, TLS, in this order. Python's ssl gives reasons."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from joblet.config import NodeConfig

PROBE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Nothing that answers, or not as a Joblet daemon does."""

    what: str
    todo: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Something answers and trust is missing, on one side or the other."""

    what: str
    todo: str


Finding = NoAnswer | Refused | None
_CLOSED = NoAnswer(
    "the daemon closes the connection",
    "it does not accept the certificate, is stopping, or has too many connections: its log tells which",
)

# TLS alerts as OpenSSL names them in SSLError.reason: what the daemon says about our certificate.
_ALERTS = {
    "CERTIFICATE_EXPIRED": ("the daemon says that this client's certificate has expired", "have a new one issued"),
    "CERTIFICATE_REVOKED": ("the daemon says that this client's certificate was revoked", "have a new one issued"),
    "UNKNOWN_CA": (
        "the daemon does not accept the certificate: another authority issued it",
        "use one that was issued on that host",
    ),
    "CERTIFICATE_REQUIRED": ("the daemon wants a client certificate", "put cert and key into the configuration"),
    "BAD_CERTIFICATE": ("the daemon does not accept the certificate", "get one of this host's authority"),
    "CERTIFICATE_UNKNOWN": ("the daemon does not accept the certificate", "get one of this host's authority"),
    "ACCESS_DENIED": ("the daemon does not accept the certificate", "have one issued with the role admin or viewer"),
    "DECRYPT_ERROR": (
        "the daemon does not accept the certificate: its signature is wrong",
        "use one that was issued on that host",
    ),
}


def probe(node: NodeConfig) -> Finding:
    """What stands between us and the node; None if a TLS connection comes about and stays."""
    if node.address.startswith("unix:"):
        return _probe_unix(node.address.removeprefix("unix:"))
    if (expired := certificate_problem(node)) is not None:
        return expired
    host, port = split_address(node.address)
    try:
        with socket.create_connection((host, port), timeout=PROBE_SECONDS) as plain:
            return _probe_tls(plain, node, host)
    except socket.gaierror as error:
        return NoAnswer(f"the name {host} is not known: {error.strerror}", "correct the address in the configuration")
    except ConnectionRefusedError:
        return NoAnswer(
            "nothing listens there",
            "is the daemon running (systemctl status joblet, or joblet serve), and is the address right?",
        )
    except TimeoutError:
        return NoAnswer("no answer", "is the host up, and does a firewall let the port through?")
    except OSError as error:
        return NoAnswer(f"no connection: {error.strerror or error}", "check the address and the network")


def certificate_problem(node: NodeConfig) -> Refused | None:
    """What is wrong with our own certificate by itself: unreadable, or not valid now."""
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(node.cert.encode())
    except ValueError:
        return Refused("the certificate in the configuration cannot be read", "have a new one issued")
    now = datetime.now(UTC)
    if certificate.not_valid_after_utc <= now:
        when = certificate.not_valid_after_utc.strftime("%Y-%m-%d %H:%M:%S UTC")
        return Refused(f"this client's certificate expired on {when}", "have a new one issued on the daemon's host")
    if certificate.not_valid_before_utc > now:
        when = certificate.not_valid_before_utc.strftime("%Y-%m-%d %H:%M:%S UTC")
        return Refused(f"this client's certificate is valid from {when} on", "is this machine's clock right?")
    return None


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[v6]:port``; 50051 if there is none."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        host, port = address, "50051"
    return host.strip("[]"), int(port)


def _probe_tls(plain: socket.socket, node: NodeConfig, host: str) -> Finding:
    try:
        with _tls_context(node).wrap_socket(plain, server_hostname=host) as tls:
            # In TLS 1.3 the client is done before the server has seen its certificate: a refusal comes as an alert
            # instead of the server's first bytes (HTTP/2 settings).
            tls.settimeout(PROBE_SECONDS)
            if not tls.recv(1):
                return _CLOSED
    except ssl.SSLCertVerificationError as error:
        if error.verify_code == 10:  # X509_V_ERR_CERT_HAS_EXPIRED
            return Refused("the daemon's certificate has expired", "have a new one issued on its host")
        return Refused(
            f"the daemon's certificate is not trusted: {error.verify_message}",
            "is this the right host, and the configuration the one that joblet init made there?",
        )
    except ssl.SSLError as error:
        reason = str(error.reason or "")
        for name, (what, todo) in _ALERTS.items():
            if reason.endswith(name):
                return Refused(what, todo)
        return NoAnswer(f"TLS fails: {reason or error}", "does a Joblet daemon listen there?")
    except TimeoutError:
        return None  # accepted, and waits for us to speak first
    except ConnectionResetError:
        return _CLOSED
    return None


def _tls_context(node: NodeConfig) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=node.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    with _private_file(node.cert + "\n" + node.key) as path:
        context.load_cert_chain(path)
    return context


@contextlib.contextmanager
def _private_file(text: str) -> Iterator[str]:
    """A 0600 file for as long as it takes to read it: ssl loads keys from files only."""
    descriptor, path = tempfile.mkstemp()
    try:
        with open(descriptor, "w") as file:
            file.write(text)
        yield path
    finally:
        os.unlink(path)


def _probe_unix(path: str) -> Finding:
    with socket.socket(socket.AF_UNIX) as probe_socket:
        probe_socket.settimeout(PROBE_SECONDS)
        try:
            probe_socket.connect(path)
        except PermissionError:
            return Refused("the daemon's socket is root's alone", "use sudo, or a configuration with a certificate")
        except OSError as error:
            return NoAnswer(f"no connection: {error.strerror or error}", "is the daemon running?")
    return None
