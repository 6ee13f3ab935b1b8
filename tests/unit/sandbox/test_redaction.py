"""No piece of a secret passes, wherever the chunks end; everything else does, and finished lines at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joblet.sandbox import redaction
from joblet.sandbox.redaction import REPLACEMENT, SHORTEST_BYTES, RedactedStream, Redaction, pieces_of

# Few letters, so that pieces overlap each other and themselves.
TEXT = st.text("ab\n", max_size=40).map(str.encode)
PIECES = st.lists(st.text("ab", min_size=SHORTEST_BYTES, max_size=9).map(str.encode), min_size=1, max_size=4)


@pytest.fixture(autouse=True, scope="module", params=[redaction.WALK_FROM, 1], ids=["search", "walk"])
def _walk_from(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redaction, "WALK_FROM", request.param)
        yield


def redacted(data: bytes, pieces: list[bytes]) -> bytes:
    return Redaction(pieces).apply(data)


def through(chunks: list[bytes], pieces: list[bytes]) -> bytes:
    stream = RedactedStream(Redaction(pieces))
    return b"".join([*(stream.feed(chunk) for chunk in chunks), stream.finish()])


@given(st.lists(TEXT, max_size=8), PIECES)
def test_chunks_make_no_difference(chunks: list[bytes], pieces: list[bytes]) -> None:
    assert through(chunks, pieces) == redacted(b"".join(chunks), pieces)


@given(TEXT, PIECES)
def test_no_piece_is_left_and_everything_else_is(data: bytes, pieces: list[bytes]) -> None:
    shown = redacted(data, pieces)
    assert not any(piece in shown for piece in pieces)
    covered = {
        at + offset
        for at in range(len(data))
        for piece in pieces
        if data[at:].startswith(piece)
        for offset in range(len(piece))
    }
    assert shown.replace(REPLACEMENT, b"") == bytes(data[at] for at in range(len(data)) if at not in covered)


@given(st.lists(TEXT, max_size=8), PIECES)
def test_no_finished_line_is_held_back_and_of_another_less_than_a_piece(
    chunks: list[bytes], pieces: list[bytes]
) -> None:
    stream = RedactedStream(Redaction(pieces))
    shown = b""
    for chunk in chunks:
        shown += stream.feed(chunk)
        assert len(stream.held) < max(map(len, pieces))
    assert shown.count(b"\n") == b"".join(chunks).count(b"\n")


def test_what_goes_on_and_on_is_shown_once_and_not_kept() -> None:
    stream = RedactedStream(Redaction([b"0000"]))
    assert [stream.feed(b"0" * 65536) for _ in range(4)] == [b"***", b"", b"", b""]
    assert stream.held == b"000"
    assert (stream.feed(b"0 1 000"), stream.finish()) == (b" 1 ", b"000")


@pytest.mark.parametrize(
    ("value", "pieces"),
    [
        (b"hunter2-canary", [b"hunter2-canary"]),
        (b"  padded value\n", [b"padded value"]),
        (
            b"-----BEGIN KEY-----\nMC4C\n\n  AQAw\n-----END KEY-----\n",
            [b"-----BEGIN KEY-----", b"-----END KEY-----", b"AQAw", b"MC4C"],
        ),
        (b"123", []),
        (b"", []),
        (b"\x00\xff\x00\xff", [b"\x00\xff\x00\xff"]),
    ],
)
def test_each_line_that_is_long_enough_is_looked_for_by_itself(value: bytes, pieces: list[bytes]) -> None:
    assert pieces_of([value, value]) == pieces


def test_what_overlaps_is_replaced_as_one() -> None:
    assert redacted(b"x abcdefghi y abcd", [b"abcdef", b"defghi"]) == b"x *** y abcd"
    assert through([b"x abcde", b"f", b"gh", b"i y abcdef"], [b"abcdef", b"defghi"]) == b"x *** y ***"
