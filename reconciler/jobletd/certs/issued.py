"""The record of what the authority issued, one JSON object a line: by it a certificate is revoked by name, whoever has it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509

from joblet.pki import load_certificate, name_of, role_of
from jobletd.certs.errors import CertsError

NAME = "issued.jsonl"


@dataclass(frozen=True, slots=True)
class Issued:
    """One certificate. role: empty for the server's."""

    serial: int
    issuer: str
    name: str
    role: str
    expires: datetime.datetime

    @classmethod
    def of(cls, pem: str) -> Issued:
        """Of a certificate's PEM text. Raises CertificateError."""
        return cls.of_certificate(load_certificate(pem))

    @classmethod
    def of_certificate(cls, certificate: x509.Certificate) -> Issued:
        return cls(
            certificate.serial_number,
            certificate.issuer.rfc4514_string(),
            name_of(certificate),
            str(role_of(certificate) or ""),
            certificate.not_valid_after_utc,
        )


def to_text(entries: Iterable[Issued]) -> str:
    return "".join(
        json.dumps(
            {
                "serial": f"{one.serial:x}",
                "issuer": one.issuer,
                "name": one.name,
                "role": one.role,
                "expires": one.expires.isoformat(),
            }
        )
        + "\n"
        for one in entries
    )


def from_text(text: str, *, where: str) -> list[Issued]:
    """Raises CertsError for what ``to_text`` did not write."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            entry = json.loads(line)
            found.append(
                Issued(
                    int(entry["serial"], 16),
                    entry["issuer"],
                    entry["name"],
                    entry["role"],
                    datetime.datetime.fromisoformat(entry["expires"]),
                )
            )
        except (ValueError, KeyError, TypeError) as error:
            raise CertsError(
                "is no entry of a certificate", where=f"{where}:{number}", todo="remove that line"
            ) from error
    return found
