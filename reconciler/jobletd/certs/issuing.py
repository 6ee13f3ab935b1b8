"""New client certificates, revoked ones, and the first ones of a configuration that has none."""

from __future__ import annotations

import datetime
import os
import re
from dataclasses import dataclass

from joblet.config.client import load_client_config
from joblet.config.editing import with_values
from joblet.config.private_file import MAX_BYTES, read_private
from joblet.config.server import ServerConfig
from joblet.config.yaml_places import ConfigText
from joblet.pki import LEAF_DAYS, Authority, Role, load_certificate
from jobletd.certs.directory import CA_CERTIFICATES, CA_KEYS, Authorities, CertificateDirectory
from jobletd.certs.errors import CertsError
from jobletd.certs.exchange import ADMIN, write_all
from jobletd.certs.inventory import client_nodes
from jobletd.certs.issued import NAME as RECORD
from jobletd.certs.issued import Issued, to_text
from jobletd.certs.renewal import File, revocation_lists, server_pair
from jobletd.certs.verification import reachable
from jobletd.setup import ADMIN as ADMIN_FILE
from jobletd.setup import VIEWER as VIEWER_FILE
from jobletd.setup import client_config, dump, found_names

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")


@dataclass(frozen=True, slots=True)
class Order:
    """A client certificate that is asked for. output: the client's configuration to write; None: beside the daemon's."""

    name: str
    role: Role
    days: float = LEAF_DAYS
    address: str | None = None
    output: str | None = None


def issue(directory: CertificateDirectory, config: ServerConfig, order: Order, now: datetime.datetime) -> str:
    """Write a client's configuration with a certificate of its own; returns its path. It is on record before anybody can use it.

    Raises CertsError, ConfigError.
    """
    if not _NAME.fullmatch(order.name):
        raise CertsError(
            f"{order.name!r} is no name", where="--name", todo="use letters, digits and . _ @ - (63 at most)"
        )
    path = os.path.abspath(order.output or directory.file(f"rnx-config-{order.name}.yml"))
    if os.path.lexists(path):
        raise CertsError("is there already", where=path, todo="give another --output, or remove it first")
    authorities = directory.authorities()
    pair = authorities.issuing.issue_client(order.name, order.role, now, days=order.days)
    address = order.address or address_for_clients(directory, config)
    content = dump(client_config(address, pair, config.security.ca_cert))
    write_all([directory.record([Issued.of(pair.certificate)]), (path, content)])
    return path


def address_for_clients(directory: CertificateDirectory, config: ServerConfig) -> str:
    """As the administrator's own configuration has it, else where the daemon listens. Raises ConfigError."""
    path = directory.file(ADMIN)
    if not os.path.exists(path):
        return reachable(config)
    return next(iter(load_client_config(path, {}).nodes.values())).address


@dataclass(frozen=True, slots=True)
class Revocation:
    """What to revoke: all of a name, one serial number (as ``certs show`` prints it), or those in a file."""

    name: str | None = None
    serial: str | None = None
    file: str | None = None


def plan_revocation(
    directory: CertificateDirectory, config: ServerConfig, asked: Revocation, now: datetime.datetime
) -> tuple[File, list[Issued]]:
    """The daemon's configuration with the new lists, and which certificates they revoke. Raises CertsError, ConfigError."""
    authorities = directory.authorities(config.security.ca_cert)
    found = _meant(directory, asked, now)
    by_issuer: dict[str, set[int]] = {}
    for one in found:
        if authorities.named(one.issuer) is None:
            what = f"only its authority can revoke it, and the key of {one.issuer} is not in {CA_KEYS}"
            raise CertsError(what, where=f"certificate {one.serial:x} of {one.name}")
        by_issuer.setdefault(one.issuer, set()).add(one.serial)
    crl = revocation_lists(authorities, config.security.crl, by_issuer, now)
    text = with_values(
        read_private(directory.config_path), {("security", "crl"): crl}, path=directory.config_path
    ).encode()
    if len(text) > MAX_BYTES:
        raise CertsError(
            "is full of revocations", where=directory.config_path, todo="joblet certs rotate --ca --no-overlap"
        )
    return (directory.config_path, text), found


def _meant(directory: CertificateDirectory, asked: Revocation, now: datetime.datetime) -> list[Issued]:
    known = {one.serial: one for one in directory.issued()}
    for path in directory.client_files():
        for node in client_nodes(path):
            one = Issued.of(node.cert)
            known.setdefault(one.serial, one)
    if asked.file is not None:
        return _in_file(asked.file)
    if asked.serial is not None:
        digits = asked.serial.lower().replace(":", "").removeprefix("0x")
        found = [one for one in known.values() if f"{one.serial:x}" == digits.lstrip("0")]
        what, where = "no certificate of that serial number is on record", f"--serial {asked.serial}"
    else:
        found = [one for one in known.values() if one.role and one.name == asked.name and one.expires > now]
        what, where = "no certificate of that name is on record that still counts", f"--name {asked.name}"
    if not found:
        raise CertsError(what, where=where, todo="joblet certs show lists them")
    return found


def _in_file(path: str) -> list[Issued]:
    text = read_private(path) if path.endswith((".yml", ".yaml")) else _plain(path)
    if "-----BEGIN CERTIFICATE" in text and not path.endswith((".yml", ".yaml")):
        return [Issued.of_certificate(load_certificate(text, where=path))]
    found = [Issued.of(node.cert) for node in client_nodes(path)]
    if not found:
        raise CertsError("holds no certificate", where=path)
    return found


def _plain(path: str) -> str:
    try:
        with open(path) as file:
            return file.read(MAX_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise CertsError(f"cannot be read: {error}", where=path) from error


def first_certificates(directory: CertificateDirectory, names: tuple[str, ...], now: datetime.datetime) -> list[str]:
    """Authority, server and two clients for a configuration that has none; returns the clients' files. Raises CertsError."""
    path = directory.config_path
    text = read_private(path)
    data = ConfigText(text, path=path).data
    section = data.get("security") if isinstance(data, dict) else None
    given = section if isinstance(section, dict) else {}
    if any(given.get(key) for key in ("serverCert", "serverKey", "caCert", "serverCertPath", "caCertPath")):
        raise CertsError("has certificates already", where=path, todo="joblet certs renew, or rotate, makes new ones")
    for name in (CA_CERTIFICATES, CA_KEYS, ADMIN_FILE, VIEWER_FILE):
        if os.path.exists(directory.file(name)):
            raise CertsError("is there already", where=directory.file(name), todo="move it away first")
    authorities = Authorities((Authority.create(now),))
    pair = server_pair(authorities, (*found_names(), *names), now)
    ca = authorities.certificates
    values: dict[tuple[str, ...], str] = {
        ("security", "serverCert"): pair.certificate,
        ("security", "serverKey"): pair.key,
        ("security", "caCert"): ca,
    }
    server = data.get("server") if isinstance(data, dict) else None
    port = (server if isinstance(server, dict) else {}).get("port", 50051)
    first = names[0] if names else "127.0.0.1"
    address = f"[{first}]:{port}" if ":" in first else f"{first}:{port}"
    issued = [Issued.of(pair.certificate)]
    clients: list[File] = []
    for role, name in ((Role.ADMIN, ADMIN_FILE), (Role.VIEWER, VIEWER_FILE)):
        client = authorities.issuing.issue_client(str(role), role, now)
        issued.append(Issued.of(client.certificate))
        clients.append((directory.file(name), dump(client_config(address, client, ca))))
    config_text = with_values(text, values, path=path)
    write_all(
        [
            (directory.file(CA_KEYS), authorities.keys.encode()),
            (directory.file(CA_CERTIFICATES), ca.encode()),
            (directory.file(RECORD), to_text(issued).encode()),
            *clients,
            (path, config_text.encode()),  # last: with it there are certificates
        ]
    )
    return [name for name, _ in clients]
