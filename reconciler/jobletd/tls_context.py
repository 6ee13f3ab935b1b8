"""What TLS may be here: version 1.3 alone, client certificates of our own CA required."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field

from joblet.pki import CertificateError, load_certificate


class CredentialsError(CertificateError):
    """Certificate, key and CA cannot be used together."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """PEM texts."""

    certificate: str
    key: str = field(repr=False)
    ca: str


def server_context(credentials: Credentials) -> ssl.SSLContext:
    """A context for the server's side. Raises CertificateError, CredentialsError."""
    for pem, where in ((credentials.certificate, "security.serverCert"), (credentials.ca, "security.caCert")):
        load_certificate(pem, where=where)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    # A resumed session is not verified again: a certificate would count for hours after it has expired.
    context.num_tickets = 0
    try:
        context.load_verify_locations(cadata=credentials.ca)
        _load_chain(context, credentials)
    except ssl.SSLError as error:
        mismatch = error.reason == "KEY_VALUES_MISMATCH"
        what = "is not the key of security.serverCert" if mismatch else "is no private key"
        raise CredentialsError(what, where="security.serverKey", todo="embed both as they were issued") from error
    return context


def _load_chain(context: ssl.SSLContext, credentials: Credentials) -> None:
    """ssl takes a key from a file only: here one in memory, so that it touches no disk."""
    fd = os.memfd_create("joblet-server-key", os.MFD_CLOEXEC)
    try:
        os.write(fd, f"{credentials.certificate}\n{credentials.key}".encode())
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def reason_of(error: BaseException) -> str:
    """Why a handshake failed, as one word with detail, such as PEER_DID_NOT_RETURN_A_CERTIFICATE."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"CERTIFICATE_VERIFY_FAILED: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    if isinstance(error, TimeoutError):
        return "HANDSHAKE_TIMEOUT"
    if isinstance(error, ConnectionError):
        return "CLOSED_DURING_HANDSHAKE"
    return type(error).__name__
