"""The names and addresses in a server certificate."""

from __future__ import annotations

import ipaddress
import re

from cryptography import x509

from joblet.errors import JobletError

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
MAX_NAME = 253


class InvalidName(JobletError):
    """No host name and no address."""


def check_name(text: str) -> str:
    """A host name or an address as a certificate holds it; brackets around an IPv6 address are taken off. Raises InvalidName."""
    name = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if is_address(name):
        return name
    plain = name.removesuffix(".")
    labels = plain.split(".")
    # What ends in a number is a mistyped address, not a name (RFC 1123).
    if len(plain) > MAX_NAME or not all(map(_LABEL.fullmatch, labels)) or labels[-1].isdecimal():
        todo = (
            "give it without the port, and the port by --port" if ":" in name else "use jobs.example.org or 192.0.2.1"
        )
        raise InvalidName(f"{text!r} is neither a host name nor an address", todo=todo)
    return plain


def is_address(name: str) -> bool:
    try:
        return "%" not in name and bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def names_in(certificate: x509.Certificate) -> tuple[str, ...]:
    """The names and addresses that a server certificate has."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = (str(one) for one in names.get_values_for_type(x509.IPAddress))
    return (*names.get_values_for_type(x509.DNSName), *addresses)


def general_name(name: str) -> x509.GeneralName:
    """Raises InvalidName."""
    name = check_name(name)
    return x509.IPAddress(ipaddress.ip_address(name)) if is_address(name) else x509.DNSName(name)
