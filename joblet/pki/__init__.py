"""Certificates and roles."""

from joblet.pki.authority import CA_DAYS, LEAF_DAYS, SKEW, Authority, CannotVouch, KeyPair, expires
from joblet.pki.names import InvalidName, check_name, is_address, names_in
from joblet.pki.roles import Role, name_of, role_of
from joblet.pki.verification import (
    CertificateError,
    CertificateExpired,
    check_certificate,
    issuer_of,
    load_certificate,
    load_certificates,
    load_revocation_lists,
)

__all__ = [
    "CA_DAYS",
    "LEAF_DAYS",
    "SKEW",
    "Authority",
    "CannotVouch",
    "CertificateError",
    "CertificateExpired",
    "InvalidName",
    "KeyPair",
    "Role",
    "check_certificate",
    "check_name",
    "expires",
    "is_address",
    "issuer_of",
    "load_certificate",
    "load_certificates",
    "load_revocation_lists",
    "name_of",
    "names_in",
    "role_of",
]
