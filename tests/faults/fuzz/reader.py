"""What a fuzzer needs to know of a reader, and which readers there are: a new one is a module in ``readers`` and a line here."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Something of ours that reads bytes from outside.

    read: takes one input; True if it was accepted, False if it was refused with an error of ours; anything else is raised.
    samples: inputs that it accepts, mostly. tokens: words that mean something to it. seconds: the longest that one input may
    take on a fast machine. grows_bytes: the most that all inputs together may add to the process at its peak.
    """

    read: Callable[[bytes], bool]
    samples: Sequence[bytes]
    tokens: Sequence[bytes] = ()
    seconds: float = 5.0
    grows_bytes: int = 256 * MEBIBYTE


Maker = Callable[[Path], Reader]
"""Makes a reader that may write to the directory."""

NAMES = (
    *("manifests", "server_configuration", "client_configuration", "certificates", "rootfs_archives", "uploads"),
    *("sealed_secrets", "exit_records", "attempt_files", "logs", "spool_names", "git", "upkeep_requests"),
)


def make(name: str, directory: Path) -> Reader:
    """The reader of that name."""
    module = importlib.import_module(f"tests.faults.fuzz.readers.{name}")
    reader = module.make(directory)
    assert isinstance(reader, Reader)
    return reader
