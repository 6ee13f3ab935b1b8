"""One secret's values, encrypted: AES-256-GCM, each value bound to its secret's uid and its key, so that none can be swapped.

The envelope is JSON with a version and the id of the key that it was sealed under, so that another key can follow.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from jobletd.secrets.errors import SecretDamaged, SecretKeyError

VERSION = 1
VERSION_SHOWN = 40
NONCE_BYTES = 12
KEY_BYTES = 32
AGAIN = "apply its manifest again, with the values"


@dataclass(frozen=True, slots=True)
class SealingKey:
    """What follows from the host's key. id: says which key it was, and nothing about it. where: for messages."""

    id: str
    where: str
    encryption: bytes = field(repr=False)
    digests: bytes = field(repr=False)

    @classmethod
    def from_material(cls, material: bytes, *, where: str) -> SealingKey:
        """material: at least 32 bytes that nobody else knows."""
        return cls(
            _derived(material, b"joblet secrets: id")[:8].hex(),
            where,
            _derived(material, b"joblet secrets: encryption"),
            _derived(material, b"joblet secrets: digests"),
        )

    def digest(self, name: str, key: str, value: bytes) -> str:
        """Tells whether a value is the same as before, and means nothing to who does not have the key."""
        message = b"\0".join((name.encode(), key.encode(), value))  # neither name nor key can hold a NUL
        return hmac.new(self.digests, message, hashlib.sha256).hexdigest()


def _derived(material: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=purpose).derive(material)


def seal(key: SealingKey, uid: str, values: Mapping[str, bytes]) -> bytes:
    """The envelope of these values."""
    cipher = AESGCM(key.encryption)
    sealed = {}
    for name, value in values.items():
        nonce = os.urandom(NONCE_BYTES)
        encrypted = cipher.encrypt(nonce, value, _bound_to(uid, name))
        sealed[name] = base64.b64encode(nonce + encrypted).decode()
    return json.dumps({"version": VERSION, "key": key.id, "values": sealed}, sort_keys=True).encode()


def unseal(key: SealingKey, uid: str, envelope: bytes, *, what: str) -> dict[str, bytes]:
    """The values. what: names the secret in messages. Raises SecretDamaged, SecretKeyError."""
    sealed = _read(envelope, what)
    if sealed.key_id != key.id:
        raise SecretKeyError(
            f"was sealed under the host's key {sealed.key_id}, and {key.where} is {key.id}",
            where=what,
            todo=f"put the earlier key back, or {AGAIN}",
        )
    cipher = AESGCM(key.encryption)
    values = {}
    for name, text in sealed.values.items():
        try:
            data = base64.b64decode(text, validate=True)
            values[name] = cipher.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], _bound_to(uid, name))
        except (binascii.Error, InvalidTag, ValueError, TypeError):
            shown = name.encode(errors="replace").decode()  # JSON can hold half of a surrogate pair
            raise SecretDamaged(f"the sealed value of {shown} is damaged", where=what, todo=AGAIN) from None
    return values


@dataclass(frozen=True, slots=True)
class _Envelope:
    key_id: str
    values: dict[str, str]


def _read(envelope: bytes, what: str) -> _Envelope:
    try:
        data = json.loads(envelope)
        version, key_id, values = data["version"], data["key"], data["values"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise SecretDamaged("its sealed values are damaged", where=what, todo=AGAIN) from None
    if version != VERSION:
        raise SecretDamaged(
            f"was sealed in version {ascii(version)[:VERSION_SHOWN]} of the form, this joblet knows {VERSION}",
            where=what,
            todo="install the version of joblet that wrote it, or a newer one",
        )
    if not (isinstance(key_id, str) and key_id.isascii() and isinstance(values, dict)):
        raise SecretDamaged("its sealed values are damaged", where=what, todo=AGAIN)
    return _Envelope(key_id, values)


def _bound_to(uid: str, name: str) -> bytes:
    return b"\0".join((b"joblet secret 1", uid.encode(), name.encode()))
