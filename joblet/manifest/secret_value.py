"""The value of a secret while it is on its way: nothing that prints, logs, compares or writes manifests shows it."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from dataclasses import dataclass
from typing import NoReturn

MASK = "***"
MAX_VALUE_BYTES = 64 << 10
MAX_VALUES = 64
MAX_ALL_BYTES = 512 << 10  # what a document of 1 MiB can hold in base64, with room to spare
SEALED_PATTERN = r"^[0-9]{1,5}:[0-9a-f]{64}$"
_SEALED = re.compile(r"([0-9]{1,5}):([0-9a-f]{64})", re.ASCII)


class SecretValue:
    """Bytes that only ``reveal`` gives."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def reveal(self) -> bytes:
        return self._data

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretValue) and hmac.compare_digest(self._data, other._data)

    def __hash__(self) -> int:
        return hash(self._data)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret value is not written anywhere")


@dataclass(frozen=True, slots=True)
class SealedValue:
    """What everybody may see of a value that the host keeps. digest: keyed, so that nobody can guess the value by it."""

    size: int
    digest: str

    def __str__(self) -> str:
        return f"{self.size}:{self.digest}"


# None of these messages may show what was found: it may be the secret, in the wrong place or the wrong form.


def parse_text(value: object) -> SecretValue:
    """A value given as text."""
    if not isinstance(value, str):
        raise ValueError("is not text; write it in quotes (what was found is not shown)")
    return _bounded(value.encode())


def parse_base64(value: object) -> SecretValue:
    """A value given in base64, also over several lines."""
    if not isinstance(value, str):
        raise ValueError("is not text in base64 (what was found is not shown)")
    try:
        return _bounded(base64.b64decode("".join(value.split()), validate=True))
    except binascii.Error:
        raise ValueError("is not base64 (what was found is not shown); text belongs below data") from None


def parse_sealed(value: object) -> SealedValue:
    """As ``rnx get secret/NAME -o yaml`` writes it."""
    match = _SEALED.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("is not a sealed value as rnx get shows it; a new value belongs below data or dataBase64")
    return SealedValue(int(match[1]), match[2])


def _bounded(data: bytes) -> SecretValue:
    if len(data) > MAX_VALUE_BYTES:
        raise ValueError(f"is {len(data)} bytes long, at most {MAX_VALUE_BYTES} are allowed")
    return SecretValue(data)
