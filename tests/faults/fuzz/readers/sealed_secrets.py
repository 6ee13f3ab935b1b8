"""Stored secrets: what a damaged disk may have made of an envelope."""

from __future__ import annotations

from pathlib import Path

from joblet.errors import JobletError
from jobletd.secrets.envelope import SealingKey, seal, unseal
from tests.faults.fuzz.reader import Reader

VALUES = {"password": b"hunter2", "": bytes(range(256)), "ä": b""}


def make(_: Path) -> Reader:
    key = SealingKey.from_material(b"k" * 32, where="the key")

    def read(data: bytes) -> bool:
        try:
            values = unseal(key, "uid", data, what="secret/x")
        except JobletError as error:
            text = str(error)
            text.encode()
            assert "hunter2" not in text
            return False
        assert values.items() <= VALUES.items()  # nothing is made up
        return True

    samples = [seal(key, "uid", VALUES), seal(key, "uid", {}), seal(key, "other", VALUES)]
    tokens = [b'"version"', b'"key"', b'"values"', b'{"a":1}', b"null", b"[]", b'"\\ud800"', b"1", b"NaN"]
    return Reader(read=read, samples=samples, tokens=tokens)
