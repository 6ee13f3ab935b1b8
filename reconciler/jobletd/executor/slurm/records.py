"""What is on record of an attempt: on this host what was handed over, in the shared directory what its node tells.

On this host ``handed/<attempt>.json`` is there from the submission until the attempt is forgotten, and ``kept/<attempt>`` from
then on until its log is removed. In the shared directory an attempt has a directory of its own, made before Slurm hears of it.
Without one that directory is on this host, for copies of what its node has (``home``).
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from joblet.atomicfile import make_once, write_atomic
from jobletd.executor.slurm_node.place import CLAIM, EXIT, LOG, STATE, USAGE
from jobletd.model import AttemptId, Reason

DEBT = "debt.json"
OUTPUT = "slurm.out"
OUTPUT_BYTES = 2000
# Beside the log: no job that Slurm finds again may start what has ended, and a node may still have its output.
_KEPT = (CLAIM, DEBT)


@dataclass(frozen=True, slots=True)
class Claim:
    """Who runs an attempt, or, with ``given_up``, that nobody may start it any more. reason: why it was given up."""

    node: str = ""
    job: str = ""
    given_up: str = ""
    reason: Reason = Reason.LOST


@dataclass(frozen=True, slots=True)
class Told:
    """What is told of an attempt by its node, through the shared directory or by the node's daemon.

    output: the end of what the batch script wrote before the launcher ran. silent: which node could not be asked, and why; then
    nothing follows from what is not told.
    """

    claim: Claim | None = None
    state: dict[str, Any] | None = None
    exit: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    output: str = ""
    silent: str = ""


NOTHING = Told()


class Records:
    """Files of this host. Every method is a few system calls on a local disk."""

    def __init__(self, directory: str) -> None:
        self._handed = f"{directory}/handed"
        self._kept = f"{directory}/kept"

    def open(self) -> None:
        for directory in (self._handed, self._kept):
            os.makedirs(directory, 0o700, exist_ok=True)

    def load(self) -> dict[AttemptId, dict[str, Any]]:
        """All that was handed over and is not forgotten."""
        found = {}
        for name in os.listdir(self._handed):
            if name.endswith(".json") and not name.startswith("."):
                attempt_id = AttemptId(name.removesuffix(".json"))
                if (record := read_json(f"{self._handed}/{name}")) is not None:
                    found[attempt_id] = record
        return found

    def write(self, attempt_id: AttemptId, record: dict[str, Any]) -> None:
        """Not fsynced: what a power cut takes, Slurm's queue and the shared directory still tell."""
        data = json.dumps(record, separators=(",", ":")).encode()
        write_atomic(f"{self._handed}/{attempt_id}.json", data, durable=False)

    def keep(self, attempt_id: AttemptId) -> None:
        """It has ended; its log is still there."""
        with open(f"{self._kept}/{attempt_id}", "w"):
            pass
        with suppress(FileNotFoundError):
            os.unlink(f"{self._handed}/{attempt_id}.json")

    def remove(self, attempt_id: AttemptId) -> None:
        for path in (f"{self._handed}/{attempt_id}.json", f"{self._kept}/{attempt_id}"):
            with suppress(FileNotFoundError):
                os.unlink(path)

    def has_ended(self, attempt_id: AttemptId) -> bool:
        """Whether it was handed over, ended and was forgotten; its log is still there."""
        return os.path.exists(f"{self._kept}/{attempt_id}")

    def knows(self, attempt_id: AttemptId) -> bool:
        return os.path.exists(f"{self._handed}/{attempt_id}.json") or os.path.exists(f"{self._kept}/{attempt_id}")


def read_told(directory: str) -> Told:
    """Everything that counts. Raises OSError if the shared directory is not there just now."""
    exit_document = read_exit(directory)
    state = None if exit_document else read_json(f"{directory}/{STATE}")
    claim = read_claim(directory)
    output = "" if claim else read_output(directory)
    return Told(claim, state, exit_document, output=output)


def read_exit(directory: str) -> dict[str, Any] | None:
    """What its node wrote of its end, if that has come."""
    return read_json(f"{directory}/{EXIT}")


def read_usage(directory: str) -> dict[str, Any] | None:
    """What it used when its node last noted that."""
    return read_json(f"{directory}/{USAGE}")


def read_claim(directory: str) -> Claim | None:
    """None if there is none; one that a power cut has torn is a claim too: somebody was about to start it."""
    path = f"{directory}/{CLAIM}"
    if not os.path.exists(path):
        return None
    data = read_json(path) or {}
    reason = data.get("reason")
    return Claim(
        node=str(data.get("node", "")),
        job=str(data.get("slurm_job_id", "")),
        given_up=str(data.get("revoked", "")),
        reason=Reason(reason) if reason in list(Reason) else Reason.LOST,
    )


def give_up(directory: str, attempt_id: str, why: str, reason: Reason) -> bool:
    """Claim it in everybody's place, so that no node starts it any more. False: somebody has claimed it before."""
    os.makedirs(directory, 0o700, exist_ok=True)
    document = {"attempt_id": attempt_id, "node": "", "slurm_job_id": "", "revoked": why, "reason": reason}
    return make_once(f"{directory}/{CLAIM}", json.dumps(document).encode())


def read_output(directory: str) -> str:
    """What a batch script said whose launcher did not start, as one line."""
    try:
        with open(f"{directory}/{OUTPUT}", "rb") as file:
            text = file.read(OUTPUT_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "; ".join(line for line in text.split("\n") if line.strip() and line.isprintable())


def free(directory: str) -> None:
    """All of an ended attempt but its claim and its log."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    for name in names:
        if name not in _KEPT and name != LOG and not name.startswith(f"{LOG}."):
            path = f"{directory}/{name}"
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(FileNotFoundError):
                    os.unlink(path)


def read_json(path: str) -> dict[str, Any] | None:
    """None if there is nothing, or only a part of it."""
    try:
        with open(path, "rb") as file:
            data = json.load(file)
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None
