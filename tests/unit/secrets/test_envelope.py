"""The envelope of sealed values: comes back whole, opens nowhere else, and is told apart from a damaged one."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobletd.secrets.envelope import SealingKey, seal, unseal
from jobletd.secrets.errors import SecretDamaged, SecretKeyError

KEY = SealingKey.from_material(b"k" * 32, where="/key")
OTHER = SealingKey.from_material(b"o" * 32, where="/other")
NAMES = st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True)
VALUES = st.dictionaries(NAMES, st.binary(max_size=200), min_size=1, max_size=4)
SOME = settings(max_examples=60, deadline=None)


@SOME
@given(VALUES)
def test_what_was_sealed_opens_again_and_is_not_in_the_envelope(values: dict[str, bytes]) -> None:
    envelope = seal(KEY, "uid", values)
    assert unseal(KEY, "uid", envelope, what="secret/x") == values
    plain = base64.b64decode("".join(json.loads(envelope)["values"].values()), validate=False)
    assert all(value not in envelope and value not in plain for value in values.values() if len(value) > 6)


@SOME
@given(VALUES)
def test_the_same_values_look_different_each_time(values: dict[str, bytes]) -> None:
    assert seal(KEY, "uid", values) != seal(KEY, "uid", values)


@SOME
@given(VALUES, st.data())
def test_any_changed_bit_is_seen_and_the_key_named(values: dict[str, bytes], data: st.DataObject) -> None:
    envelope = json.loads(seal(KEY, "uid", values))
    name = data.draw(st.sampled_from(sorted(values)))
    raw = bytearray(base64.b64decode(envelope["values"][name]))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    envelope["values"][name] = base64.b64encode(raw).decode()
    with pytest.raises(SecretDamaged, match="is damaged") as found:
        unseal(KEY, "uid", json.dumps(envelope).encode(), what="secret/x")
    assert name in found.value.what and found.value.where == "secret/x"


def test_a_value_opens_neither_for_another_secret_nor_under_another_key_of_it() -> None:
    envelope = seal(KEY, "uid", {"a": b"one", "b": b"two"})
    with pytest.raises(SecretDamaged):
        unseal(KEY, "other uid", envelope, what="secret/x")
    swapped = json.loads(envelope)
    values = swapped["values"]
    values["a"], values["b"] = values["b"], values["a"]
    with pytest.raises(SecretDamaged):
        unseal(KEY, "uid", json.dumps(swapped).encode(), what="secret/x")


def test_another_key_is_told_from_damage() -> None:
    with pytest.raises(SecretKeyError, match="put the earlier key back") as found:
        unseal(OTHER, "uid", seal(KEY, "uid", {"a": b"one"}), what="secret/x")
    assert KEY.id in str(found.value) and OTHER.id in str(found.value)


@pytest.mark.parametrize("envelope", [b"", b"{}", b"[]", b"\xff", b'{"version": 1, "key": 3, "values": {}}'])
def test_what_is_no_envelope_is_damage(envelope: bytes) -> None:
    with pytest.raises(SecretDamaged):
        unseal(KEY, "uid", envelope, what="secret/x")


def test_a_newer_form_is_told() -> None:
    with pytest.raises(SecretDamaged, match="version 2"):
        unseal(KEY, "uid", b'{"version": 2, "key": "x", "values": {}}', what="secret/x")


@SOME
@given(NAMES, NAMES, st.binary(max_size=50))
def test_a_digest_depends_on_the_key_the_names_and_the_value(name: str, key: str, value: bytes) -> None:
    digest = KEY.digest(name, key, value)
    assert digest == KEY.digest(name, key, value)
    assert (
        len(
            {
                digest,
                OTHER.digest(name, key, value),
                KEY.digest(name + "x", key, value),
                KEY.digest(name, key, value + b"x"),
            }
        )
        == 4
    )


def test_a_key_does_not_print_itself() -> None:
    assert "encryption" not in repr(KEY) and "kkkk" not in repr(KEY)


@pytest.mark.parametrize(
    "envelope",
    [
        b"[" * 5000,
        b'{"version": 1, "key": "\\ud800", "values": {}}',
        b'{"version": 1, "key": "%s", "values": {"a": 7}}' % KEY.id.encode(),
        b'{"version": 1, "key": "%s", "values": {"\\ud800": "AAAA"}}' % KEY.id.encode(),
        b'{"version": "\\ud800", "key": "x", "values": {}}',
        b'{"version": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_a_damaged_disk_leaves_is_damaged_in_words_that_can_be_sent(envelope: bytes) -> None:
    with pytest.raises(SecretDamaged) as found:
        unseal(KEY, "uid", envelope, what="secret/x")
    assert len(str(found.value).encode()) < 300
