"""Whether a certificate counts, said in words for people."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from contextlib import suppress

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from joblet.errors import JobletError

_CRL = re.compile(r"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


class CertificateError(JobletError):
    """A certificate does not count."""


class CertificateExpired(CertificateError):
    """Its time is over."""


def check_certificate(pem: str, ca_pem: str, now: datetime.datetime, *, where: str = "") -> x509.Certificate:
    """The first certificate, if one of these authorities issued it, or vouches by those that follow it for the one that did,
    and it is valid now. where: what is named in an error.

    Raises CertificateExpired, CertificateError.
    """
    certificate, *between = load_certificates(pem, where=where)
    trusted = load_certificates(ca_pem, where="the authority's certificate")
    while vouched_for := [one for one in between if one not in trusted and issuer_of(one, trusted) is not None]:
        trusted += vouched_for
    authority = issuer_of(certificate, trusted)
    if authority is None:
        issuer = certificate.issuer.rfc4514_string()
        raise CertificateError(
            f"another authority issued it ({issuer})", where=where, todo="use one that this host's authority issued"
        )
    if now < certificate.not_valid_before_utc:
        begin = certificate.not_valid_before_utc.isoformat(" ", "seconds")
        raise CertificateError(f"is valid only from {begin} on", where=where, todo="is the clock right?")
    for one, what in ((certificate, "expired"), (authority, "is of an authority that expired")):
        if now >= one.not_valid_after_utc:
            end = one.not_valid_after_utc.isoformat(" ", "seconds")
            raise CertificateExpired(f"{what} on {end}", where=where, todo="have a new one issued")
    return certificate


def issuer_of(certificate: x509.Certificate, authorities: Iterable[x509.Certificate]) -> x509.Certificate | None:
    """The one of these that signed it."""
    for authority in authorities:
        with suppress(ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            certificate.verify_directly_issued_by(authority)
            return authority
    return None


def load_certificates(pem: str, *, where: str = "") -> list[x509.Certificate]:
    """All that stand in the text, at least one. Raises CertificateError."""
    load_certificate(pem, where=where)
    try:
        return x509.load_pem_x509_certificates(pem.encode())
    except ValueError as error:
        raise CertificateError("holds something that is no certificate", where=where, todo="embed PEM text") from error


def load_revocation_lists(pem: str, *, where: str = "") -> list[x509.CertificateRevocationList]:
    """All that stand in the text, at least one. Raises CertificateError."""
    try:
        found = [x509.load_pem_x509_crl(text.encode()) for text in _CRL.findall(pem)]
    except ValueError as error:
        raise CertificateError("is no revocation list", where=where, todo="embed its PEM text") from error
    if not found:
        raise CertificateError("is no revocation list", where=where, todo="embed its PEM text")
    return found


def load_certificate(pem: str, *, where: str = "") -> x509.Certificate:
    """Raises CertificateError for what is missing or no certificate."""
    if not pem.strip():
        raise CertificateError("the certificate is missing", where=where, todo="embed its PEM text")
    if not pem.isascii():  # OpenSSL takes no other text, not even around a certificate
        raise CertificateError("has characters that no PEM text has", where=where, todo="embed its PEM text alone")
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        # What is read only when it is asked for is asked for here, where an error has its place.
        for name in (certificate.issuer, certificate.subject):
            name.rfc4514_string()
        _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        return certificate
    except (ValueError, x509.InvalidVersion) as error:
        raise CertificateError("is no certificate", where=where, todo="embed its PEM text") from error
