"""From samples to inputs that nobody thought of. The same seed and number always give the same input."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

LONGEST_BYTES = 1 << 20
MOST_STEPS = 8
_BYTES = (0x00, 0x0A, 0x0D, 0x20, 0x22, 0x2D, 0x3A, 0x5C, 0x7F, 0x80, 0xC0, 0xED, 0xF4, 0xFF)
_NUMBERS = (b"0", b"-1", b"1e400", b"9223372036854775808", b"-9223372036854775809", b"0x" + b"f" * 40, b"9" * 5000)
_NESTING = (b"[", b"{", b"- ", b'{"a":', b"? ", b"(", b"&a ", b"!!x ")
_ODD = (b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xf4\x90\x80\x80", b"\r", b"\x1b[2J")

Step = Callable[[random.Random, bytearray, "Mutation"], None]


class Mutation:
    """samples: what the reader takes. tokens: words that mean something to it."""

    def __init__(self, samples: Sequence[bytes], tokens: Sequence[bytes] = ()) -> None:
        self.samples = samples
        self.tokens = (*tokens, *_ODD, *_NUMBERS)

    def input(self, seed: str, number: int) -> bytes:
        """The first ones are the samples themselves."""
        if number < len(self.samples):
            return self.samples[number]
        chance = random.Random(f"{seed}/{number}")
        if chance.random() < 0.02:
            return chance.randbytes(chance.randrange(4096))
        data = bytearray(chance.choice(self.samples))
        for _ in range(chance.randint(1, MOST_STEPS)):
            chance.choice(_STEPS)(chance, data, self)
            if len(data) > LONGEST_BYTES:
                del data[LONGEST_BYTES:]
        return bytes(data)


def _span(chance: random.Random, data: bytearray) -> slice:
    start = chance.randrange(len(data) + 1)
    return slice(start, min(len(data), start + int(chance.expovariate(1 / 16))))


def _flip(chance: random.Random, data: bytearray, _: Mutation) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _set(chance: random.Random, data: bytearray, _: Mutation) -> None:
    if data:
        data[chance.randrange(len(data))] = chance.choice(_BYTES)


def _cut_out(chance: random.Random, data: bytearray, _: Mutation) -> None:
    del data[_span(chance, data)]


def _truncate(chance: random.Random, data: bytearray, _: Mutation) -> None:
    del data[chance.randrange(len(data) + 1) :]


def _insert_token(chance: random.Random, data: bytearray, mutation: Mutation) -> None:
    at = chance.randrange(len(data) + 1)
    data[at:at] = chance.choice(mutation.tokens)


def _replace_by_token(chance: random.Random, data: bytearray, mutation: Mutation) -> None:
    data[_span(chance, data)] = chance.choice(mutation.tokens)


def _replace_number(chance: random.Random, data: bytearray, _: Mutation) -> None:
    """The first number after some place."""
    start = chance.randrange(len(data) + 1)
    while start < len(data) and not 0x30 <= data[start] <= 0x39:
        start += 1
    end = start
    while end < len(data) and 0x30 <= data[end] <= 0x39:
        end += 1
    if end > start:
        data[start:end] = chance.choice(_NUMBERS)


def _repeat(chance: random.Random, data: bytearray, _: Mutation) -> None:
    span = _span(chance, data)
    times = int(chance.expovariate(1 / 4)) if chance.random() < 0.95 else chance.randrange(20_000)
    data[span.stop : span.stop] = bytes(data[span]) * times


def _nest(chance: random.Random, data: bytearray, _: Mutation) -> None:
    at = chance.randrange(len(data) + 1)
    data[at:at] = chance.choice(_NESTING) * chance.choice((3, 70, 2000))


def _splice(chance: random.Random, data: bytearray, mutation: Mutation) -> None:
    other = chance.choice(mutation.samples)
    data[chance.randrange(len(data) + 1) :] = other[chance.randrange(len(other) + 1) :]


def _swap_lines(chance: random.Random, data: bytearray, _: Mutation) -> None:
    lines = bytes(data).split(b"\n")
    one, two = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[one], lines[two] = lines[two], lines[one]
    data[:] = b"\n".join(lines)


def _double_line(chance: random.Random, data: bytearray, _: Mutation) -> None:
    lines = bytes(data).split(b"\n")
    at = chance.randrange(len(lines))
    lines.insert(at, lines[at])
    data[:] = b"\n".join(lines)


_STEPS: tuple[Step, ...] = (
    *(_flip, _flip, _set, _set, _cut_out, _cut_out, _truncate, _insert_token, _insert_token, _replace_by_token),
    *(_replace_by_token, _replace_number, _repeat, _nest, _splice, _swap_lines, _double_line),
)
