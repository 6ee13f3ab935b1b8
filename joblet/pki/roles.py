"""What a client certificate allows: its OU is the role."""

from __future__ import annotations

from enum import StrEnum

from cryptography import x509
from cryptography.x509.oid import NameOID


class Role(StrEnum):
    """admin may do all, viewer may read, slurm may ask about attempts that Slurm has run here; anything else nothing."""

    ADMIN = "admin"
    VIEWER = "viewer"
    SLURM = "slurm"

    def includes(self, needed: Role) -> bool:
        return self is Role.ADMIN or self is needed


def role_of(certificate: x509.Certificate) -> Role | None:
    """The role in the subject's OU; None for no OU, another one, or several."""
    units = [
        attribute.value for attribute in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    ]
    if len(units) != 1 or units[0] not in list(Role):
        return None
    return Role(str(units[0]))


def name_of(certificate: x509.Certificate) -> str:
    """The subject's CN, or an empty string."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""
