"""Uploaded contents on a node: fetched from the shared directory once, checked against their SHA-256, and kept for a while.

<state>/slurm/contents/<sha256>    what this node has; each attempt has a link of its own, so what goes here takes it from nobody
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from joblet.errors import JobletError
from joblet.manifest import JobManifest
from jobletd.blobs.copying import copy_checked
from jobletd.blobs.naming import contents_of
from jobletd.executor.slurm_node.directories import locked

LONGEST_SECONDS = 7 * 86400.0
LOCK = "lock"


class ContentGone(JobletError):
    """What was uploaded for a job has not come to the node."""


class NodeContents:
    """Those of one node. most_bytes: that are kept. Blocking: to be called in a thread."""

    def __init__(self, directory: str, most_bytes: int) -> None:
        self._directory = directory
        self._most_bytes = most_bytes

    def provide(self, job: JobManifest, source_of: Callable[[str], str], into: str) -> None:
        """Put a link to each content of a job into the directory ``into``. source_of: where one lies for all hosts.

        Raises ContentGone, ContentDamaged, OSError.
        """
        contents = dict(contents_of(job))
        if not contents:
            return
        os.makedirs(into, 0o700, exist_ok=True)
        os.makedirs(self._directory, 0o700, exist_ok=True)
        with locked(f"{self._directory}/{LOCK}"):  # who waited finds what we have fetched
            for sha256, size in contents.items():
                self._fetch(source_of(sha256), sha256, size)
                os.link(f"{self._directory}/{sha256}", f"{into}/{sha256}")
            self._trim(time.time())

    def _fetch(self, source: str, sha256: str, size: int) -> None:
        path = f"{self._directory}/{sha256}"
        try:
            if os.stat(path).st_size == size:
                os.utime(path)
                return
        except FileNotFoundError:
            pass
        try:
            copy_checked(source, path, sha256, size)
        except FileNotFoundError:
            raise ContentGone(
                f"the content {sha256[:12]}... is not in the shared directory",
                where=source,
                todo="run the job again",
            ) from None

    def _trim(self, now: float) -> None:
        """Those that were used last stay."""
        found = []
        for entry in os.scandir(self._directory):
            if entry.name.endswith(".tmp"):  # of one that was killed: we are alone here
                os.unlink(entry.path)
            elif entry.name != LOCK:
                found.append((entry.stat().st_mtime, entry.stat().st_size, entry.path))
        total = 0
        for used, size, path in sorted(found, reverse=True):
            total += size
            if total > self._most_bytes or now - used > LONGEST_SECONDS:
                os.unlink(path)
