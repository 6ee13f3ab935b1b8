"""What files of the spool said when they were last parsed, by their content: a start need not parse again what is the same.

To parse a manifest takes ten times as long as to read its file. What is kept is no state but a memory of a pure function: from
a content, under exactly these rules, to its jobs in their canonical form. So it can be lost, be old, or belong to another state
of the database, and nothing goes wrong: where a job on record is not what the content says, the content is parsed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import structlog
import yaml

import joblet
from joblet.atomicfile import write_atomic
from joblet.manifest import JobManifest, manifest_to_json
from jobletd.model import JobName
from jobletd.sources.spool_files import Loaded, Refused, read_content

_RULES = "manifest", "schedules"  # the packages that say what a content means
_UNSAVED = 1000  # so many may be lost when the daemon is killed
_log = structlog.get_logger(__name__)

Jobs = tuple[tuple[str, int, int, str], ...]  # of a content: each job's name, line, column, and digest


class KnownContents:
    """path: where it is kept. present: the manifest on record of a job, None if there is no such job.

    Used by one thread at a time.
    """

    def __init__(self, path: str, present: Callable[[JobName], JobManifest | None]) -> None:
        self._path = path
        self._present = present
        self._rules = ""
        self._known: dict[str, Jobs] = {}
        self._used: dict[str, str] = {}  # by file
        self._unsaved = 0

    def read(self, data: bytes, name: str) -> Loaded | Refused:
        """The content of a file: from what is on record if that is the same, else parsed."""
        if not self._rules:  # at the first one, as that is in a thread
            self._rules = digest_of_rules()
            self._known = self._load()
        digest = _digest(data + b"\0" + os.path.splitext(name)[1].encode())
        jobs = self._known.get(digest)
        loaded = None if jobs is None else self._from_record(jobs)
        if loaded is not None:
            self._used[name] = digest
            return loaded
        content = read_content(data, name)
        self.forget(name)
        kept = _jobs_of(content)
        if kept is not None:
            self._known[digest] = kept
            self._used[name] = digest
            self._unsaved += 1
        return content

    def forget(self, name: str) -> None:
        """The file is gone, or says something else."""
        if self._used.pop(name, None) is not None:
            self._unsaved += 1

    def save(self, *, all_of_it: bool) -> None:
        """Keep what the present files say for the next daemon; unless ``all_of_it``, once there is enough that is new."""
        if not self._unsaved or (not all_of_it and self._unsaved < _UNSAVED):
            return
        # A copy: at the daemon's end a look may still be under way in its thread.
        self._known = {digest: self._known[digest] for digest in list(self._used.values())}
        data = json.dumps({"rules": self._rules, "contents": self._known}, separators=(",", ":")).encode()
        try:
            write_atomic(self._path, data, durable=False)
        except OSError as error:
            _log.info("what the spool's files say is not kept: the next start parses them", error=str(error))
        self._unsaved = 0

    def _load(self) -> dict[str, Jobs]:
        try:
            content: Any = json.loads(Path(self._path).read_bytes())
            if content["rules"] != self._rules:
                return {}
            return {
                str(digest): tuple((str(n), int(line), int(column), str(d)) for n, line, column, d in jobs)
                for digest, jobs in content["contents"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}  # not there, or not whole after a power cut

    def _from_record(self, jobs: Jobs) -> Loaded | None:
        manifests: list[JobManifest] = []
        for name, _, _, digest in jobs:
            manifest = self._present(JobName(name))
            if manifest is None or _digest(manifest_to_json(manifest).encode()) != digest:
                return None
            manifests.append(manifest)
        return Loaded(tuple(manifests), {name: (line, column) for name, line, column, _ in jobs})


def digest_of_rules() -> str:
    """Of everything that has a say in what a content means: another version may read it otherwise."""
    parts = [joblet.__version__, pydantic.VERSION, yaml.__version__]
    root = Path(joblet.__file__).parent
    for package in _RULES:
        parts += [path.read_text() for path in sorted((root / package).rglob("*.py"))]
    return _digest("\0".join(parts).encode())


def _jobs_of(content: Loaded | Refused) -> Jobs | None:
    """None: not to be kept. Secrets least of all: what is kept must not help to guess their values."""
    if not isinstance(content, Loaded):
        return None
    found: list[tuple[str, int, int, str]] = []
    for manifest in content.manifests:
        if not isinstance(manifest, JobManifest):
            return None
        line, column = content.places[manifest.metadata.name]
        found.append((manifest.metadata.name, line, column, _digest(manifest_to_json(manifest).encode())))
    return tuple(found)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
