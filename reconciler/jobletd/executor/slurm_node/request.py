"""What a batch script is told: the attempt to run, as the executor on the other host has written it."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from joblet.errors import JobletError
from joblet.manifest import JobManifest, JobSpec, Network
from jobletd.executor import AttemptRequest
from jobletd.executor.slurm_node.sealed_secrets import key_in
from jobletd.model import AttemptId

VERSION = 1
MOST_BYTES = 64 << 20
SHORTEST_SECONDS = 0.001  # of a run whose time is over: it ends as TimedOut, on record
_ATTEMPT = re.compile(r"[a-z0-9][a-z0-9.-]{0,126}-[0-9]+")
BY_THE_DIRECTORY = "in a directory that all hosts share, and slurm.sharedDirectory is not set"


class RequestError(JobletError):
    """What is on standard input, or in the file, is no request of ours."""


class NotOnANode(JobletError):
    """A manifest asks for what only the host of the daemon has."""


@dataclass(frozen=True, slots=True)
class SandboxRequest:
    """attempt: as the local executor takes it. shared_directory: what all hosts see, or None. cluster: Slurm's name of it.

    secrets_key: of what waits there for the attempt; empty without secrets."""

    attempt: AttemptRequest
    shared_directory: str | None
    cluster: str
    secrets_key: str = ""

    @property
    def attempt_id(self) -> AttemptId:
        return self.attempt.attempt_id


@dataclass(frozen=True, slots=True)
class Allocation:
    """Where Slurm runs us. node: its name there."""

    node: str
    slurm_job_id: str

    @classmethod
    def of_environment(cls, env: Mapping[str, str]) -> Allocation:
        """Raises RequestError outside of a batch script."""
        try:
            return cls(env["SLURMD_NODENAME"], env["SLURM_JOB_ID"])
        except KeyError as error:
            raise RequestError(
                f"is run by Slurm in a batch script, where {error.args[0]} is set",
                where="joblet sandbox-exec",
                todo="see docs/SLURM.md; jobs are started by rnx apply",
            ) from None


def decode(data: bytes, now: float) -> SandboxRequest:
    """A request as JSON, or that in base64. now: seconds since the epoch. Raises RequestError."""
    text = data.strip()
    if not text.startswith(b"{"):
        try:
            text = base64.b64decode(b"".join(text.split()), validate=True)
        except binascii.Error as error:
            raise RequestError("is neither JSON nor base64", where="the request", todo="see docs/SLURM.md") from error
    try:
        return _read(json.loads(text), now)
    except (ValueError, TypeError, KeyError, RecursionError, ValidationError) as error:
        what = f"cannot be read: {type(error).__name__}: {error}".splitlines()[0]
        raise RequestError(what, where="the request", todo="install the same version of Joblet on all hosts") from error


def _read(document: dict[str, Any], now: float) -> SandboxRequest:
    if document["version"] != VERSION:
        raise ValueError(f"version {document['version']!r} is not known")
    attempt_id = document["attempt_id"]
    if not isinstance(attempt_id, str) or not is_attempt_id(attempt_id):
        raise ValueError("attempt_id is none")
    executor = document["executor"]
    shared = executor.get("shared_directory")
    if shared is not None and not (isinstance(shared, str) and os.path.isabs(shared)):
        raise ValueError("shared_directory is no absolute path")
    manifest = JobManifest.model_validate(document["manifest"])
    tick = document.get("tick_seconds")
    return SandboxRequest(
        AttemptRequest(
            attempt_id=AttemptId(attempt_id),
            run_id=str(document["run_id"]),
            number=int(document["number"]),
            manifest=manifest,
            deadline_seconds=_seconds_left(document, now),
            tick_seconds=None if tick is None else int(tick),
        ),
        shared,
        str(executor.get("cluster") or ""),
        key_in(document),
    )


def _seconds_left(document: Mapping[str, Any], now: float) -> float | None:
    """Of the run's time. deadline_unix: a moment, so that the time in Slurm's queue counts; else what was left at submission."""
    moment, seconds = document.get("deadline_unix"), document.get("deadline_seconds")
    if moment is not None:
        return max(float(moment) - now, SHORTEST_SECONDS)
    return None if seconds is None else float(seconds)


def is_attempt_id(text: str) -> bool:
    """Whether it may be the name of a directory of ours."""
    return _ATTEMPT.fullmatch(text) is not None


def by_the_shared_directory(spec: JobSpec) -> Iterator[tuple[str, str]]:
    """The fields that ask for what reaches a node by a directory that all hosts share, each with the beginning of a reason."""
    if spec.secrets:
        yield "secrets", "secrets come to a node"
    if spec.volumes:
        yield "volumes", "volumes lie"
    if any(file.sha256 is not None for file in spec.files):
        yield "files", "uploaded files come to a node"


def check(manifest: JobManifest, shared_directory: str | None) -> None:
    """Whether a node has all that the manifest asks for. Raises NotOnANode, which names the field."""
    spec = manifest.spec
    if spec.isolation.network not in (Network.NONE, Network.HOST):
        raise _not_here(manifest, "isolation.network", "networks of Joblet end at its host; none and host can be had")
    if shared_directory is None:
        for field, what in by_the_shared_directory(spec):
            raise _not_here(manifest, field, f"{what} {BY_THE_DIRECTORY}")


def _not_here(manifest: JobManifest, field: str, why: str) -> NotOnANode:
    where = f"job {manifest.metadata.name}: spec.{field}"
    return NotOnANode(f"cannot be had on a node of Slurm: {why}", where=where, todo="use executor: local")
