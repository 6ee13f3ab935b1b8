"""A certificate authority of one host: ECDSA P-256, a CA, a server certificate, client certificates with a role."""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from joblet.errors import JobletError
from joblet.pki.names import general_name
from joblet.pki.roles import Role
from joblet.pki.verification import CertificateError

CA_DAYS = 3650
LEAF_DAYS = 365
# Clocks of two machines differ: a certificate is valid a little before it was made.
SKEW = datetime.timedelta(minutes=5)
ALWAYS_NAMES = ("joblet", "localhost", "joblet-server", "127.0.0.1", "::1", "0.0.0.0")  # noqa: S104  a name, not a listener


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate with its private key, both as PEM text."""

    certificate: str
    key: str


class CannotVouch(JobletError):
    """An authority whose certificate does not let it vouch for another one."""


class Authority:
    """Issues certificates."""

    def __init__(self, pair: KeyPair) -> None:
        """Raises CertificateError."""
        self.pair = pair
        self._certificate = x509.load_pem_x509_certificate(pair.certificate.encode())
        key = serialization.load_pem_private_key(pair.key.encode(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            todo = "make a new one by joblet certs init, or have certificates issued where this one is"
            raise CertificateError("has no ECDSA key, so nothing is issued by it here", where=self.subject, todo=todo)
        self._key = key

    @classmethod
    def create(cls, now: datetime.datetime, *, days: float = CA_DAYS) -> Authority:
        """A new CA with a key of its own."""
        key = ec.generate_private_key(ec.SECP256R1())
        # A name of its own: for as long as two of them count, people and programs tell them apart by it.
        name = _name(f"joblet CA {secrets.token_hex(4)}", None)
        builder = _builder(name, name, key.public_key(), now, days)
        # No bound on the path: it may vouch for the authority that follows it, and so on.
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(identifier, critical=False)
        return cls(KeyPair(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key)))

    @property
    def ends(self) -> datetime.datetime:
        """When its own certificate does."""
        return self._certificate.not_valid_after_utc

    @property
    def begins(self) -> datetime.datetime:
        return self._certificate.not_valid_before_utc

    @property
    def subject(self) -> str:
        """As certificates of it name their issuer."""
        return self._certificate.subject.rfc4514_string()

    def vouch_for(self, successor: Authority, now: datetime.datetime) -> str:
        """A certificate for another authority's key: who trusts this one then trusts that one, for as long as this one lasts.

        Raises CannotVouch.
        """
        constraints = self._certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        if constraints.path_length is not None:
            raise CannotVouch("may not vouch for another authority", where=self._certificate.subject.rfc4514_string())
        other = successor._certificate
        builder = _builder(other.subject, self._certificate.subject, successor._key.public_key(), now, None, self.ends)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
        subject = x509.SubjectKeyIdentifier.from_public_key(successor._key.public_key())
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(subject, critical=False).add_extension(authority, critical=False)
        return _pem(builder.sign(self._key, hashes.SHA256()))

    def revoke(self, serials: Iterable[int], now: datetime.datetime) -> str:
        """A list that revokes these certificates; it counts as long as the authority does."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._certificate.subject)
        builder = builder.last_update(now - SKEW).next_update(self.ends)
        for serial in sorted(set(serials)):
            one = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - SKEW).build()
            builder = builder.add_revoked_certificate(one)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(identifier, critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    def issue_server(self, names: Sequence[str], now: datetime.datetime, *, days: float = LEAF_DAYS) -> KeyPair:
        """A server certificate for these names and addresses, and those that every Joblet server answers to.

        Raises InvalidName.
        """
        alternatives = [general_name(name) for name in dict.fromkeys((*ALWAYS_NAMES, *names))]
        extension = x509.SubjectAlternativeName(alternatives)
        return self._issue(_name("joblet-server", None), ExtendedKeyUsageOID.SERVER_AUTH, now, days, extension)

    def issue_client(self, name: str, role: Role | str, now: datetime.datetime, *, days: float = LEAF_DAYS) -> KeyPair:
        """A client certificate whose OU is the role."""
        return self._issue(_name(name, str(role)), ExtendedKeyUsageOID.CLIENT_AUTH, now, days, None)

    def _issue(
        self,
        subject: x509.Name,
        usage: x509.ObjectIdentifier,
        now: datetime.datetime,
        days: float,
        alternatives: x509.SubjectAlternativeName | None,
    ) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(subject, self._certificate.subject, key.public_key(), now, days, self.ends)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(authority, critical=False)
        if alternatives is not None:
            builder = builder.add_extension(alternatives, critical=False)
        return KeyPair(_pem(builder.sign(self._key, hashes.SHA256())), _key_pem(key))


def expires(certificate_pem: str) -> datetime.datetime:
    """When a certificate ends, in UTC. Raises ValueError for what is none."""
    return x509.load_pem_x509_certificate(certificate_pem.encode()).not_valid_after_utc


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    days: float | None,
    latest: datetime.datetime | None = None,
) -> x509.CertificateBuilder:
    """latest: none lives longer than the authority that signs it; without days it lives as long."""
    ends = [] if days is None else [now + datetime.timedelta(days=days)]
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(min(ends if latest is None else [*ends, latest]))
    )


def _name(common: str, unit: str | None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "joblet")]
    if unit is not None:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
