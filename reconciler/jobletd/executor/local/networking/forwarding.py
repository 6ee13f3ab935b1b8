"""Forwarding of the host's own interfaces: where the host is no router, only answers to jobs shall pass it.

Packets of jobs come in by a bridge of ours, which forwards. Their answers come in by the interface to the world, which must
forward too. If the host forwards nothing otherwise (net.ipv4.ip_forward is 0), that is switched on for this interface alone,
noted, held by the filter to what goes to jobs, and given back at the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from joblet.atomicfile import write_atomic

CONF = Path("/proc/sys/net/ipv4/conf")


class Forwarding:
    """notes: a file on a tmpfs, gone after a restart of the host as the settings are."""

    def __init__(self, notes: Path) -> None:
        self._notes = notes
        with suppress(FileNotFoundError):
            self.borrowed = frozenset(notes.read_text().split())
            return
        self.borrowed = frozenset()

    def needed(self) -> bool:
        """Whether the host forwards nothing by itself."""
        return _read("all") == "0"

    def switch_on(self, interfaces: Iterable[str]) -> bool:
        """Returns whether that changed anything. Raises OSError."""
        new = {name for name in interfaces if name not in self.borrowed and _read(name) == "0"}
        if not new:
            return False
        self._note(self.borrowed | new)
        for name in new:
            (CONF / name / "forwarding").write_text("1")
        return True

    def give_back(self) -> None:
        """As it was."""
        if not self.borrowed:
            return
        for name in self.borrowed:
            with suppress(FileNotFoundError):
                if _read("all") == "0":
                    (CONF / name / "forwarding").write_text("0")
        self._note(frozenset())

    def _note(self, borrowed: frozenset[str]) -> None:
        self._notes.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        write_atomic(str(self._notes), "".join(f"{name}\n" for name in sorted(borrowed)).encode(), durable=False)
        self.borrowed = borrowed


def _read(name: str) -> str:
    return (CONF / name / "forwarding").read_text().strip()
