"""The configuration's directory as ``joblet certs`` sees it: authorities and their keys, the record, the clients' files.

``ca.crt`` holds the authorities whose certificates count, ``ca.key`` their keys. The first in ``ca.crt`` that has its key issues;
those after it are its predecessors, which count until what they issued has expired.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from joblet.config.private_file import read_private
from joblet.pki import Authority, KeyPair, load_certificates
from jobletd.certs import issued
from jobletd.certs.errors import CertsError
from jobletd.certs.issued import Issued

CA_CERTIFICATES, CA_KEYS = "ca.crt", "ca.key"
_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----\n?", re.DOTALL)
_CLIENT = re.compile(r"rnx-config[A-Za-z0-9._@-]*\.ya?ml")


@dataclass(frozen=True, slots=True)
class Authorities:
    """newest first: the one that issues, then its predecessors."""

    all: tuple[Authority, ...]

    @property
    def issuing(self) -> Authority:
        return self.all[0]

    @property
    def certificates(self) -> str:
        return "".join(one.pair.certificate for one in self.all)

    @property
    def keys(self) -> str:
        return "".join(one.pair.key for one in self.all)

    def named(self, issuer: str) -> Authority | None:
        return next((one for one in self.all if one.subject == issuer), None)


class CertificateDirectory:
    """One directory. config_path: of the daemon's configuration, beside which everything lies."""

    def __init__(self, config_path: str) -> None:
        self.config_path = os.path.abspath(config_path)
        self.path = os.path.dirname(self.config_path)

    def file(self, name: str) -> str:
        return f"{self.path}/{name}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """For us alone while it changes. Raises CertsError."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise CertsError(f"cannot be used: {error.strerror}", where=self.path) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise CertsError("another joblet certs is at work", where=self.path, todo="wait for its end") from None
        finally:
            os.close(fd)

    def authorities(self, trusted: str = "") -> Authorities:
        """trusted: those that the daemon's configuration has; one of ours that a rotation which broke off left there comes last.

        Raises CertsError, ConfigError, CertificateError.
        """
        path = self.file(CA_CERTIFICATES)
        if not os.path.exists(self.file(CA_KEYS)) or not os.path.exists(path):
            todo = "use them where they were made, or joblet certs init where there are none"
            raise CertsError(
                f"{CA_CERTIFICATES} and {CA_KEYS} of the authority are not here", where=self.path, todo=todo
            )
        keys = {_public(key): key for key in _KEY.findall(read_private(self.file(CA_KEYS)))}
        certificates = load_certificates(read_private(path), where=path)
        if not any(_encoded(one.public_key()) in keys for one in certificates):
            raise CertsError(f"none of its keys is one of {CA_CERTIFICATES}", where=self.file(CA_KEYS))
        more = load_certificates(trusted, where="security.caCert") if trusted else []
        return Authorities(
            tuple(
                Authority(KeyPair(_pem(one), keys[public]))
                for one in dict.fromkeys((*certificates, *more))
                if (public := _encoded(one.public_key())) in keys
            )
        )

    def issued(self) -> list[Issued]:
        """What is on record; nothing where there is no record. Raises CertsError, ConfigError."""
        path = self.file(issued.NAME)
        return issued.from_text(read_private(path), where=path) if os.path.exists(path) else []

    def record(self, entries: Sequence[Issued]) -> tuple[str, bytes]:
        """The record's path, and what it has to hold with these added."""
        return self.file(issued.NAME), issued.to_text([*self.issued(), *entries]).encode()

    def client_files(self) -> list[str]:
        """The clients' configurations that lie here."""
        return sorted(self.file(name) for name in os.listdir(self.path) if _CLIENT.fullmatch(name))


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _public(key_pem: str) -> bytes:
    """Of a private key. Raises CertsError."""
    try:
        return _encoded(serialization.load_pem_private_key(key_pem.encode(), password=None).public_key())
    except (ValueError, TypeError) as error:
        raise CertsError("holds something that is no private key", where=CA_KEYS) from error


def _encoded(public_key: object) -> bytes:
    encoded: bytes = public_key.public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded
