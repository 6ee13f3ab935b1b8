"""Values of a job's secrets in what it writes: each is replaced before anything is kept.

This is against accidents, ``set -x`` and a library's debug output. A job that wants to tell a secret can turn it into other
bytes. What a job writes and what its secrets are must cost its init neither memory nor much time: see decision 0081.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

REPLACEMENT = b"***"
SHORTEST_BYTES = 4  # anything shorter is part of ordinary words and numbers
WALK_FROM = 256  # pieces: from there on one walk over the data is quicker than a search for each


def pieces_of(values: Iterable[bytes]) -> list[bytes]:
    """What to look for: each line of each value by itself, since a program may indent the lines of a key, or print only one."""
    lines = {line.strip() for value in values for line in value.splitlines()}
    return sorted(line for line in lines if len(line) >= SHORTEST_BYTES)


class Redaction:
    """What is looked for. Offsets of spans are those of their first byte and of the one behind their last."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self._by_head: dict[bytes, list[bytes]] = {}
        if len(pieces) >= WALK_FROM:
            for piece in pieces:
                self._by_head.setdefault(piece[:SHORTEST_BYTES], []).append(piece)

    def apply(self, data: bytes) -> bytes:
        """With each occurrence of a piece replaced."""
        return _replaced(data, self.spans(data))

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Where pieces are, in order; those that overlap are one."""
        if self._by_head:
            return merged(self._walk(data))
        return merged(sorted(span for piece in self.pieces for span in merged(_matches(data, piece))))

    def _walk(self, data: bytes) -> Iterator[tuple[int, int]]:
        for at in range(len(data) - SHORTEST_BYTES + 1):
            for piece in self._by_head.get(data[at : at + SHORTEST_BYTES], ()):
                if data.startswith(piece, at):
                    yield at, at + len(piece)

    def beginning(self, data: bytes) -> int:
        """Where the longest end of the data starts with which a piece begins; the data's length if there is none."""
        line = data.rfind(b"\n") + 1  # no piece has an end of line in it
        if line == len(data):
            return line
        return min((_beginning(data, line, piece) for piece in self.pieces), default=len(data))


class RedactedStream:
    """One stream that comes in chunks, at whose borders a piece may be cut in two.

    What may be the beginning of a piece is held back until it is known: less than the longest one, and nothing of a finished
    line.
    """

    def __init__(self, redaction: Redaction) -> None:
        self.held = b""
        self._redaction = redaction
        self._shown = 0  # so many bytes of what is held belong to a piece whose replacement was shown already

    def feed(self, data: bytes) -> bytes:
        """What may be shown of it by now."""
        data = self.held + data
        return self._show(data, self._redaction.beginning(data))

    def finish(self) -> bytes:
        """What was held back: there is no more to come."""
        return self._show(self.held, len(self.held))

    def _show(self, data: bytes, cut: int) -> bytes:
        """All before ``cut``; what follows is held back."""
        self.held = data[cut:]
        spans = self._redaction.spans(data)
        if self._shown:
            spans = merged([(0, self._shown), *spans])
        begun = [span for span in spans if span[0] < cut]
        if not begun:
            return data[:cut]
        text = _replaced(data[:cut], begun)
        if self._shown:
            text = text.removeprefix(REPLACEMENT)
        self._shown = max(0, begun[-1][1] - cut)
        return text


def merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """In order of their beginnings; those that overlap become one."""
    found: list[tuple[int, int]] = []
    for start, end in spans:
        if found and start < found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found


def _matches(data: bytes, piece: bytes) -> Iterator[tuple[int, int]]:
    at = data.find(piece)
    while at >= 0:
        yield at, at + len(piece)
        at = data.find(piece, at + 1)


def _beginning(data: bytes, line: int, piece: bytes) -> int:
    """As above, of one piece. line: where the data's last line begins."""
    start = data.find(piece[:1], max(line, len(data) - len(piece) + 1))
    while start >= 0 and not piece.startswith(data[start:]):
        start = data.find(piece[:1], start + 1)
    return start if start >= 0 else len(data)


def _replaced(data: bytes, spans: list[tuple[int, int]]) -> bytes:
    if not spans:
        return data
    shown = []
    at = 0
    for start, end in spans:
        shown += [data[at:start], REPLACEMENT]
        at = end
    return b"".join([*shown, data[at:]])
