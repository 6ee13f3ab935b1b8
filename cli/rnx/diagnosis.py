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
from typing import TYPE_CHECKING

from joblet.config import NodeConfig
from rnx.diagnosis_words import ALERTS, ISSUE, about_the_daemons

if TYPE_CHECKING:
    from cryptography import x509

PROBE_SECONDS = 3.0
_NEW = f"have a new one issued on the daemon's host: {ISSUE}"


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
    """What is wrong with our own certificate by itself: unreadable, without its key, not for clients, or not valid now."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    try:
        certificate = x509.load_pem_x509_certificate(node.cert.encode())
    except ValueError:
        return Refused("the certificate in the configuration cannot be read", _NEW)
    now = datetime.now(UTC)
    if certificate.not_valid_after_utc <= now:
        when = certificate.not_valid_after_utc.strftime("%Y-%m-%d %H:%M:%S UTC")
        return Refused(f"this client's certificate expired on {when}", _NEW)
    if certificate.not_valid_before_utc > now:
        when = certificate.not_valid_before_utc.strftime("%Y-%m-%d %H:%M:%S UTC")
        return Refused(f"this client's certificate is valid from {when} on", "is this machine's clock right?")
    with contextlib.suppress(x509.ExtensionNotFound):
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
            return Refused("the certificate in the configuration is not for clients", _NEW)
    return _key_problem(node, certificate)


def _key_problem(node: NodeConfig, certificate: x509.Certificate) -> Refused | None:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        public = load_pem_private_key(node.key.encode(), password=None).public_key()
    except (ValueError, TypeError):
        return Refused("the key in the configuration cannot be read", _NEW)
    if public != certificate.public_key():
        return Refused("the key is not that of the certificate in the configuration", "take both from the same file")
    try:
        x509.load_pem_x509_certificates(node.ca.encode())
    except ValueError:
        return Refused("the ca in the configuration cannot be read", "it is the text of ca.crt on the daemon's host")
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
        return Refused(*about_the_daemons(error.verify_code, error.verify_message, host))
    except ssl.SSLError as error:
        reason = str(error.reason or "")
        for name, (what, todo) in ALERTS.items():
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
