"""Plans an exchange of certificates: which are due, and every file with its new text, in an order that is right at each point.

Old clients and an old daemon go on with what is written first: the daemon's configuration then trusts the old and the new
authority, and the server's certificate is one of the new authority for which the old one vouches. Clients' files come last, when
the daemon serves what they expect.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from itertools import pairwise

from cryptography.hazmat.primitives import serialization

from joblet.config.client import NodeConfig
from joblet.config.editing import with_values
from joblet.config.private_file import read_private
from joblet.config.server import ServerConfig
from joblet.pki import (
    LEAF_DAYS,
    Authority,
    CannotVouch,
    KeyPair,
    load_certificate,
    load_certificates,
    names_in,
    role_of,
)
from jobletd.certs.directory import CA_CERTIFICATES, CA_KEYS, Authorities, CertificateDirectory
from jobletd.certs.errors import CertsError
from jobletd.certs.inventory import SOON, State, client_nodes, inventory
from jobletd.certs.issued import Issued
from jobletd.setup import found_names
from jobletd.tls_context import Revocations

LEAF = datetime.timedelta(days=LEAF_DAYS)
File = tuple[str, bytes]


@dataclass(frozen=True, slots=True)
class Wish:
    """What to exchange. everything: not only what is due. new_authority: the CA too; without overlap what the old one issued
    counts no more. names: for the server's certificate, beside those that it has."""

    everything: bool = False
    new_authority: bool = False
    overlap: bool = True
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Exchange:
    """first: before the daemon reloads; then: once it serves the new certificate. server: that certificate. client: a renewed
    client, to call as. overlap: clients of before go on. what: for people."""

    first: tuple[File, ...]
    then: tuple[File, ...]
    server: str
    client: NodeConfig | None
    overlap: bool
    what: tuple[str, ...]


def plan_exchange(
    directory: CertificateDirectory, config: ServerConfig, wish: Wish, now: datetime.datetime
) -> Exchange | None:
    """None: nothing is due. Raises CertsError, ConfigError, CertificateError, InvalidName; nothing has changed then."""
    security = config.security
    if security.server_cert_path or security.server_key_path or security.ca_cert_path:
        raise CertsError(
            "names certificates by path, so they are somebody else's to renew",
            where=directory.config_path,
            todo="replace the files, then joblet reload",
        )
    authorities = before = directory.authorities(security.ca_cert)
    new_authority = wish.new_authority or authorities.issuing.ends - now < LEAF + SOON
    everything = wish.everything or new_authority
    due = [
        one
        for one in inventory(directory, security, now)
        if one.kind != "authority" and (everything or one.state in (State.SOON, State.EXPIRED))
    ]
    due_serials = {one.serial for one in due if one.state is not State.REVOKED}
    if not due_serials and not wish.names:
        return None
    if new_authority:
        authorities = successor(authorities, directory, now, overlap=wish.overlap)
    return _planned(
        directory,
        config,
        _Making(authorities, before, due_serials, wish.names, now, wish.overlap),
        new_authority=new_authority,
    )


def successor(
    authorities: Authorities, directory: CertificateDirectory, now: datetime.datetime, *, overlap: bool
) -> Authorities:
    """With a new one in front. A predecessor stays until what it issued has expired. Raises CertsError."""
    new = Authority.create(now)
    if not overlap:
        return Authorities((new,))
    living = {one.issuer for one in directory.issued() if one.expires > now}
    kept = [one for one in authorities.all if one.ends > now and (one is authorities.issuing or one.subject in living)]
    try:
        for one in kept:
            one.vouch_for(new, now)
    except CannotVouch as error:
        todo = "--no-overlap makes a new one all the same: every client needs its new file then"
        raise CertsError(error.what, where=error.where, todo=todo) from error
    return Authorities((new, *kept))


def revocation_lists(
    authorities: Authorities,
    crl: str,
    more: dict[str, set[int]],
    now: datetime.datetime,
    *,
    before: Authorities | None = None,
) -> str:
    """A list of each authority, with what ``crl`` revokes and these serial numbers by issuer; none where nothing is revoked.
    Lists of authorities that were never ours stay. before: ours until now, if others."""
    known = {one.subject for one in (*authorities.all, *(before or authorities).all)}
    revoked = {one.subject: set(more.get(one.subject, ())) for one in authorities.all}
    for one in Revocations.of(crl).lists:
        if (issuer := one.issuer.rfc4514_string()) in revoked:
            revoked[issuer] |= {entry.serial_number for entry in one}
    others = "".join(
        one.public_bytes(serialization.Encoding.PEM).decode()
        for one in Revocations.of(crl).lists
        if one.issuer.rfc4514_string() not in known
    )
    if not any(revoked.values()) and not others:
        return ""
    return "".join(one.revoke(revoked[one.subject], now) for one in authorities.all) + others


def with_others(authorities: Authorities, before: Authorities, ca_cert: str) -> str:
    """The authorities to trust: these, and those of ``ca_cert`` that were never ours."""
    ours = {one.subject for one in (*authorities.all, *before.all)}
    others = "".join(
        one.public_bytes(serialization.Encoding.PEM).decode()
        for one in load_certificates(ca_cert, where="security.caCert")
        if one.subject.rfc4514_string() not in ours
    )
    return authorities.certificates + others


def server_pair(authorities: Authorities, names: tuple[str, ...], now: datetime.datetime) -> KeyPair:
    """The server's certificate, followed by those by which each predecessor vouches for its successor: one path leads from it
    to all of them, since OpenSSL tries no second one."""
    pair = authorities.issuing.issue_server(names, now)
    vouchers = "".join(old.vouch_for(new, now) for new, old in pairwise(authorities.all))
    return KeyPair(pair.certificate + vouchers, pair.key)


@dataclass(frozen=True, slots=True)
class _Making:
    authorities: Authorities
    before: Authorities
    due: set[int]
    names: tuple[str, ...]
    now: datetime.datetime
    overlap: bool


def _planned(
    directory: CertificateDirectory, config: ServerConfig, making: _Making, *, new_authority: bool
) -> Exchange:
    security, authorities, now = config.security, making.authorities, making.now
    what = [f"authority {authorities.issuing.subject}"] if new_authority else []
    issued: list[Issued] = []
    values: dict[tuple[str, ...], str] = {}
    server = security.server_cert
    certificate = load_certificate(server, where="security.serverCert")
    if certificate.serial_number in making.due or making.names:
        names = (*names_in(certificate), *found_names(), *making.names)
        pair = server_pair(authorities, names, now)
        server = pair.certificate
        values = {("security", "serverCert"): server, ("security", "serverKey"): pair.key}
        issued.append(Issued.of(server))
        what.append("server")
    if new_authority:
        values[("security", "caCert")] = with_others(authorities, making.before, security.ca_cert)
        if crl := revocation_lists(authorities, security.crl, {}, now, before=making.before):
            values[("security", "crl")] = crl
    first: list[File] = [(directory.file(CA_KEYS), authorities.keys.encode())] if new_authority else []
    if values:
        text = with_values(read_private(directory.config_path), values, path=directory.config_path)
        first.append((directory.config_path, text.encode()))
    then: list[File] = [(directory.file(CA_CERTIFICATES), authorities.certificates.encode())] if new_authority else []
    clients: list[File] = []
    caller: NodeConfig | None = None
    for path in directory.client_files():
        renewed = _renewed_clients(path, making)
        if renewed:
            clients.append((path, _client_text(path, renewed).encode()))
            issued += [Issued.of(node.cert) for node in renewed]
            what += [f"client {one.name} ({one.role})" for one in map(Issued.of, (node.cert for node in renewed))]
            caller = caller or renewed[0]
    then += [directory.record(issued), *clients]
    return Exchange(tuple(first), tuple(then), server, caller, making.overlap, tuple(what))


def _renewed_clients(path: str, making: _Making) -> list[NodeConfig]:
    """The nodes of a client's file whose certificates are due, with new ones of the same name and role."""
    found = []
    for node in client_nodes(path):
        certificate = load_certificate(node.cert, where=path)
        role = role_of(certificate)
        if certificate.serial_number in making.due and role is not None:
            name = Issued.of_certificate(certificate).name
            pair = making.authorities.issuing.issue_client(name, role, making.now)
            found.append(
                NodeConfig(node.name, node.address, pair.certificate, pair.key, making.authorities.certificates)
            )
    return found


def _client_text(path: str, renewed: list[NodeConfig]) -> str:
    values: dict[tuple[str, ...], str] = {
        ("nodes", node.name, key): text
        for node in renewed
        for key, text in (("cert", node.cert), ("key", node.key), ("ca", node.ca))
    }
    return with_values(read_private(path), values, path=path)
