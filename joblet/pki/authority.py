"""A certificate authority of one host: ECDSA P-256, a CA, a server certificate, client certificates with a role."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from joblet.pki.names import general_name
from joblet.pki.roles import Role

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


class Authority:
    """Issues certificates."""

    def __init__(self, pair: KeyPair) -> None:
        self.pair = pair
        self._certificate = x509.load_pem_x509_certificate(pair.certificate.encode())
        key = serialization.load_pem_private_key(pair.key.encode(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key

    @classmethod
    def create(cls, now: datetime.datetime, *, days: float = CA_DAYS) -> Authority:
        """A new CA with a key of its own."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("joblet CA", None)
        builder = _builder(name, name, key.public_key(), now, days)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(identifier, critical=False)
        return cls(KeyPair(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key)))

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
        builder = _builder(subject, self._certificate.subject, key.public_key(), now, days)
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
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime.datetime, days: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
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
