"""Whether a certificate counts, said in words for people."""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from joblet.errors import JobletError


class CertificateError(JobletError):
    """A certificate does not count."""


class CertificateExpired(CertificateError):
    """Its time is over."""


def check_certificate(pem: str, ca_pem: str, now: datetime.datetime, *, where: str = "") -> x509.Certificate:
    """The certificate, if this authority issued it and it is valid now. where: what is named in an error.

    Raises CertificateExpired, CertificateError.
    """
    certificate = load_certificate(pem, where=where)
    authority = load_certificate(ca_pem, where="the authority's certificate")
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        issuer = certificate.issuer.rfc4514_string()
        raise CertificateError(
            f"another authority issued it ({issuer})", where=where, todo="use one that this host's authority issued"
        ) from error
    if now < certificate.not_valid_before_utc:
        begin = certificate.not_valid_before_utc.isoformat(" ", "seconds")
        raise CertificateError(f"is valid only from {begin} on", where=where, todo="is the clock right?")
    for one, what in ((certificate, "expired"), (authority, "is of an authority that expired")):
        if now >= one.not_valid_after_utc:
            end = one.not_valid_after_utc.isoformat(" ", "seconds")
            raise CertificateExpired(f"{what} on {end}", where=where, todo="have a new one issued")
    return certificate


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
