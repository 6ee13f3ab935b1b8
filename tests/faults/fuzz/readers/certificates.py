"""Certificates and keys in PEM, and the certificate of a peer in DER, from which its role is taken."""

from __future__ import annotations

import base64
import datetime
import zlib
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from joblet.pki import Authority, CertificateError, Role, check_certificate, load_certificate, name_of, role_of
from jobletd.tls_context import Credentials, server_context
from tests.faults.fuzz.reader import Reader

NOW = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC)


def make(_: Path) -> Reader:
    authority = Authority.create(NOW)
    ca, server = authority.pair.certificate, authority.issue_server(["joblet.example"], NOW)
    client = authority.issue_client("somebody", Role.ADMIN, NOW)

    def read(data: bytes) -> bool:
        """DER begins with a sequence, and travels as PEM too."""
        text = pem(data) if data.startswith(b"\x30") else data.decode(errors="replace")
        if data.startswith(b"\x30"):
            read_peer(data)
        tries = (
            lambda: load_certificate(text),
            lambda: check_certificate(text, ca, NOW),
            lambda: check_certificate(server.certificate, text, NOW),
            lambda: server_context(Credentials(text, server.key, ca)),
            lambda: server_context(Credentials(server.certificate, text, ca)),
            lambda: server_context(Credentials(server.certificate, server.key, text)),
        )
        number = zlib.crc32(data)
        refused = 0
        for one in tries if number % 8 == 0 else (tries[number % 6], tries[0]):
            try:
                one()
            except CertificateError as error:
                str(error).encode()
                refused += 1
        return refused == 0

    ders = [
        x509.load_pem_x509_certificate(text.encode()).public_bytes(Encoding.DER) for text in (ca, client.certificate)
    ]
    texts = [
        ca,
        server.certificate,
        client.certificate,
        server.key,
        ca + server.certificate,
        server.certificate + server.key,
    ]
    tokens = [
        b"-----BEGIN CERTIFICATE-----\n",
        b"-----END CERTIFICATE-----\n",
        b"-----BEGIN EC PRIVATE KEY-----\n",
        b"==",
    ]
    return Reader(read=read, samples=[*ders, *(text.encode() for text in texts)], tokens=tokens)


def read_peer(der: bytes) -> None:
    """As the TLS front does with what OpenSSL has let through."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        name_of(certificate), role_of(certificate)
    except (ValueError, x509.InvalidVersion):
        return


def pem(der: bytes) -> str:
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n"
