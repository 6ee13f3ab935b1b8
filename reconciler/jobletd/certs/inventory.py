"""What certificates there are and how they stand: for ``joblet certs show``, for renewal, and for ``joblet doctor``."""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from enum import StrEnum

from joblet.config.client import NodeConfig, load_client_config
from joblet.config.daemon_sections import SecuritySection
from joblet.config.errors import ConfigError
from joblet.pki import CertificateError, load_certificate, load_certificates
from jobletd.certs.directory import CertificateDirectory
from jobletd.certs.issued import Issued
from jobletd.tls_context import Revocations

SOON = datetime.timedelta(days=30)


class State(StrEnum):
    """How a certificate stands."""

    VALID = "valid"
    SOON = "expires soon"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Entry:
    """One certificate. kind: authority, server or client. places: the files that hold it."""

    kind: str
    name: str
    role: str
    serial: int
    expires: datetime.datetime
    state: State
    places: tuple[str, ...] = ()


def client_nodes(path: str) -> list[NodeConfig]:
    """The nodes of a client's configuration that have a certificate. Raises ConfigError."""
    return [node for node in load_client_config(path, {}).nodes.values() if node.cert]


def inventory(directory: CertificateDirectory, security: SecuritySection, now: datetime.datetime) -> list[Entry]:
    """Authorities, the server's certificate, clients' by name. Raises CertificateError, CertsError, ConfigError."""
    revocations = Revocations.of(security.crl)
    revoked = {one.serial_number for crl in revocations.lists for one in crl}

    def entry(kind: str, one: Issued, places: tuple[str, ...] = ()) -> Entry:
        return Entry(kind, one.name, one.role, one.serial, one.expires, state_of(one, revoked, now), places)

    found = [
        entry("authority", Issued.of_certificate(one))
        for one in load_certificates(security.ca_cert, where="security.caCert")
    ]
    server = Issued.of_certificate(load_certificate(security.server_cert, where="security.serverCert"))
    found.append(entry("server", server, (directory.config_path,)))
    clients: dict[int, tuple[Issued, list[str]]] = {
        one.serial: (one, []) for one in directory.issued() if one.role and one.expires > now
    }
    for path in directory.client_files():
        try:
            for node in client_nodes(path):
                one = Issued.of(node.cert)
                clients.setdefault(one.serial, (one, []))[1].append(path)
        except (ConfigError, CertificateError):
            continue  # joblet certs verify says what is wrong with it
    ordered = sorted(clients.values(), key=lambda pair: (pair[0].name, pair[0].expires))
    return [*found, *(entry("client", one, tuple(places)) for one, places in ordered)]


def state_of(one: Issued, revoked: set[int], now: datetime.datetime) -> State:
    if one.serial in revoked:
        return State.REVOKED
    if one.expires <= now:
        return State.EXPIRED
    return State.SOON if one.expires - now < SOON else State.VALID


def as_json(entry: Entry) -> dict[str, object]:
    """serial: as OpenSSL prints it."""
    return {
        "kind": entry.kind,
        "name": entry.name,
        "role": entry.role or None,
        "serial": f"{entry.serial:x}",
        "expires": entry.expires.isoformat(),
        "state": str(entry.state),
        "files": [os.path.basename(place) for place in entry.places],
    }
