"""Certificates and roles."""

from joblet.pki.authority import Authority, KeyPair, expires
from joblet.pki.roles import Role, name_of, role_of

__all__ = ["Authority", "KeyPair", "Role", "expires", "name_of", "role_of"]
