"""``status/<file>.error.yml``: what is wrong with a file, beside the status of the jobs, for as long as it is wrong."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from joblet.atomicfile import write_atomic
from joblet.clock import Clock
from joblet.manifest.errors import ManifestError
from joblet.manifest.yaml_writer import yaml_text

SUFFIX = ".error.yml"
NAME_BYTES = 200  # of the longest error file: a file system takes 255, and it is written under a longer name first

Fault = tuple[str, tuple[ManifestError, ...]]  # a reason and all that is wrong


class ErrorFiles:
    """Writes, keeps and removes the error files of one status directory."""

    def __init__(self, directory: str, *, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._shown: dict[str, Fault] | None = None

    def __len__(self) -> int:
        """How many files have errors."""
        return len(self._shown or ())

    def update(self, faults: Mapping[str, Fault]) -> tuple[list[str], list[str]]:
        """Make the directory hold the errors of these files and no others. Raises OSError.

        Returns the files whose errors are new or changed, and those whose errors are gone.
        """
        if self._shown is None:
            self._remove_those_of_an_earlier_daemon(faults)
            self._shown = {}
        new = [file for file, fault in faults.items() if self._shown.get(file) != fault]
        gone = [file for file in self._shown if file not in faults]
        for file in new:
            self._write(file, *faults[file])
            self._shown[file] = faults[file]
        for file in gone:
            self._remove(error_name(file))
            del self._shown[file]
        return new, gone

    def _write(self, file: str, reason: str, errors: tuple[ManifestError, ...]) -> None:
        os.makedirs(self._directory, mode=0o755, exist_ok=True)
        data: dict[str, Any] = {
            "file": file,
            "reason": reason,
            "since": f"{datetime.fromtimestamp(self._clock.wall_ns() // 10**9, UTC):%Y-%m-%dT%H:%M:%SZ}",
            "effect": "nothing that runs was changed",
            "errors": [_entry(error) for error in errors],
        }
        write_atomic(os.path.join(self._directory, error_name(file)), yaml_text(data).encode(), 0o644, durable=False)

    def _remove_those_of_an_earlier_daemon(self, faults: Mapping[str, Fault]) -> None:
        current = {error_name(file) for file in faults}
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self._directory):
                if name.endswith(SUFFIX) and name not in current:
                    self._remove(name)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self._directory, name))


def error_name(file: str) -> str:
    """The error file of a file, which may have a name that is too long for more to be put behind it."""
    if len(file.encode()) + len(SUFFIX) <= NAME_BYTES:
        return file + SUFFIX
    return f"{file.encode()[:100].decode(errors='ignore')}-{hashlib.sha256(file.encode()).hexdigest()[:16]}{SUFFIX}"


def _entry(error: ManifestError) -> dict[str, Any]:
    place = f"{error.file}:{error.line}:{error.column}"
    return {"at": place, **({"path": error.path} if error.path else {}), "message": error.message}
