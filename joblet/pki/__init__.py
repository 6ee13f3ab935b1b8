"""Certificates and roles."""

from joblet.pki.authority import CA_DAYS, LEAF_DAYS, Authority, KeyPair, expires
from joblet.pki.names import InvalidName, check_name, is_address
from joblet.pki.roles import Role, name_of, role_of
from joblet.pki.verification import CertificateError, CertificateExpired, check_certificate, load_certificate

__all__ = [
    "CA_DAYS",
    "LEAF_DAYS",
    "Authority",
    "CertificateError",
    "CertificateExpired",
    "InvalidName",
    "KeyPair",
    "Role",
    "check_certificate",
    "check_name",
    "expires",
    "is_address",
    "load_certificate",
    "name_of",
    "role_of",
]
