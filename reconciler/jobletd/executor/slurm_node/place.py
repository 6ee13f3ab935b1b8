"""Where an attempt's claim, state, end and log lie: for all hosts in the shared directory, or else on the node that ran it.

<root>/attempts/<attempt id>/claim       who may run it: made once, by O_EXCL
                             state.json  that it runs, since when, with which limits
                             usage.json  what it used when that was last noted, while it runs
                             exit.json   how it ended: the init's exit record, and what the node read out of it
                             log         its output, with rotated parts beside it
                             secrets     sealed, until the node has taken them
                             contents/   of uploaded files, by SHA-256
                             probe.json  what a service answers
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from joblet.atomicfile import make_once, sync_directory, write_atomic
from jobletd.log_reader import LogFiles

CLAIM = "claim"
STATE = "state.json"
USAGE = "usage.json"
EXIT = "exit.json"
LOG = "log"
MOST_FILE_BYTES = 1 << 20  # of all but the log


@dataclass(frozen=True, slots=True)
class Place:
    """directory: of one attempt."""

    directory: str

    @classmethod
    def of(cls, root: str, attempt_id: str) -> Place:
        return cls(f"{root}/attempts/{attempt_id}")

    @property
    def root(self) -> str:
        """The directory that it is in, with those of all others."""
        return os.path.dirname(os.path.dirname(self.directory))

    @property
    def log(self) -> LogFiles:
        return LogFiles(f"{self.directory}/{LOG}")

    def content(self, sha256: str) -> str:
        """Where an uploaded content of its job lies."""
        return f"{self.directory}/contents/{sha256}"

    def claim(self, claimant: Mapping[str, Any]) -> bool:
        """Put on record who runs the attempt, for ever. False: somebody has done so before, be it ourselves. Raises OSError."""
        os.makedirs(self.directory, 0o711, exist_ok=True)
        if not make_once(f"{self.directory}/{CLAIM}", json.dumps({**claimant, "time": time.time()}).encode()):
            return False
        sync_directory(os.path.dirname(self.directory))
        return True

    def write(self, name: str, document: Mapping[str, Any], *, durable: bool) -> None:
        """STATE, USAGE or EXIT. Raises OSError."""
        write_atomic(f"{self.directory}/{name}", json.dumps(document).encode() + b"\n", durable=durable)

    def bytes_of(self, name: str) -> bytes:
        """Of one of its files but the log; empty if it is not there."""
        try:
            with open(f"{self.directory}/{name}", "rb") as file:
                return file.read(MOST_FILE_BYTES)
        except FileNotFoundError:
            return b""

    def read(self, name: str) -> dict[str, Any] | None:
        """None if it is not there, or a power cut has left a part. Raises OSError."""
        try:
            with open(f"{self.directory}/{name}", "rb") as file:
                document = json.load(file)
        except (FileNotFoundError, ValueError, RecursionError):
            return None
        return document if isinstance(document, dict) else None

    @property
    def has_ended(self) -> bool:
        return os.path.exists(f"{self.directory}/{EXIT}")

    def forget(self) -> None:
        """All but the claim, which fences a late start; without harm if nothing is there. Raises OSError."""
        self.log.remove()
        for name in (STATE, USAGE, EXIT):
            with suppress(FileNotFoundError):
                os.unlink(f"{self.directory}/{name}")
