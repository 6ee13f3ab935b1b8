"""What TLS may be here: 1.3 unless the configuration allows 1.2, client certificates of our own CAs required, none revoked."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cryptography import x509

from joblet.config.daemon_sections import SecuritySection
from joblet.pki import CertificateError, load_certificate, load_certificates, load_revocation_lists

MINIMUM = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class CredentialsError(CertificateError):
    """Certificate, key and CA cannot be used together."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """PEM texts. crl: revocation lists, one of each authority, or none at all."""

    certificate: str
    key: str = field(repr=False)
    ca: str
    crl: str = ""
    min_version: str = "1.3"


def credentials_of(security: SecuritySection) -> Credentials:
    return Credentials(
        security.server_cert, security.server_key, security.ca_cert, security.crl, security.min_tls_version
    )


@dataclass(frozen=True, slots=True)
class Revocations:
    """What revocation lists say, for connections that stand already: OpenSSL asks them at the handshake alone."""

    lists: tuple[x509.CertificateRevocationList, ...]

    @classmethod
    def of(cls, crl: str) -> Revocations:
        """Raises CertificateError."""
        return cls(tuple(load_revocation_lists(crl, where="security.crl")) if crl else ())

    def holds(self, certificate: x509.Certificate) -> bool:
        number = certificate.serial_number
        return any(
            one.issuer == certificate.issuer and one.get_revoked_certificate_by_serial_number(number) is not None
            for one in self.lists
        )


def server_context(credentials: Credentials) -> ssl.SSLContext:
    """A context for the server's side. Raises CertificateError, CredentialsError."""
    load_certificate(credentials.certificate, where="security.serverCert")
    authorities = load_certificates(credentials.ca, where="security.caCert")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = MINIMUM[credentials.min_version]
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")  # of TLS 1.2; 1.3 has its own
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    # A resumed session is not verified again: a certificate would count for hours after it has expired.
    context.num_tickets = 0
    if credentials.crl:
        _check_lists(credentials.crl, authorities)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    try:
        with _in_memory(f"{credentials.ca}\n{credentials.crl}") as path:
            context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise CredentialsError(
            "cannot be used", where="security.caCert", todo="embed PEM text as it was issued"
        ) from error
    try:
        with _in_memory(f"{credentials.certificate}\n{credentials.key}") as path:
            context.load_cert_chain(path)
    except ssl.SSLError as error:
        mismatch = error.reason == "KEY_VALUES_MISMATCH"
        what = "is not the key of security.serverCert" if mismatch else "is no private key"
        raise CredentialsError(what, where="security.serverKey", todo="embed both as they were issued") from error
    return context


def _check_lists(crl: str, authorities: list[x509.Certificate]) -> None:
    """OpenSSL refuses every certificate of an authority that has no list. Raises CertificateError."""
    listed = {one.issuer for one in load_revocation_lists(crl, where="security.crl")}
    for authority in authorities:
        if authority.subject not in listed:
            name = authority.subject.rfc4514_string()
            raise CredentialsError(
                f"has no list of {name}", where="security.crl", todo="add one of each authority, or leave crl out"
            )


@contextmanager
def _in_memory(text: str) -> Iterator[str]:
    """ssl takes keys and revocation lists from a file only: here one in memory, so that a key touches no disk."""
    fd = os.memfd_create("joblet-tls", os.MFD_CLOEXEC)
    try:
        os.write(fd, text.encode())
        yield f"/proc/self/fd/{fd}"
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
