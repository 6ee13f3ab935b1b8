"""What attempts leave on a node whose sandbox-exec was killed: it is put on record how they ended, and the rest goes.

Slurm kills all processes of a job at once, in the end with SIGKILL: then nobody is left who could do it. So the next who comes by
does: Slurm's epilog, the next sandbox-exec, or the node's daemon when it is asked about the attempt.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from joblet.atomicfile import write_atomic
from joblet.cgroup import CgroupError, remove_nested
from joblet.sandbox import exit_record
from jobletd.executor import Ended
from jobletd.executor.local import attempt_files
from jobletd.executor.local.outcome import end_of
from jobletd.executor.local.volume_image import VolumeError
from jobletd.executor.local.workspace import remove_workspace
from jobletd.executor.slurm_node.directories import NodeDirectories
from jobletd.executor.slurm_node.place import EXIT, Place
from jobletd.executor.slurm_node.records import exit_document
from jobletd.executor.slurm_node.request import Allocation
from jobletd.executor.slurm_node.volumes import give_all_back
from jobletd.model import End, Reason, Unknown, Usage

OWNER = "owner.json"
LOCK = "lock"
EMPTY_WITHIN_SECONDS = 1.0
KILLED = "Slurm killed the job before its end was on record"
REBOOTED = "the node was started anew while it ran"


@dataclass(frozen=True, slots=True)
class Owner:
    """What sandbox-exec notes for whoever has to clear away after it. remains: cgroups. volumes: their names."""

    attempt_id: str
    place: str
    node: str
    slurm_job_id: str
    boot_id: str
    remains: tuple[str, ...]
    volumes: tuple[str, ...] = ()

    @property
    def allocation(self) -> Allocation:
        return Allocation(self.node, self.slurm_job_id)


@contextmanager
def owned(directories: NodeDirectories, owner: Owner) -> Iterator[None]:
    """Hold the attempt's live directory: as long as we do, or live, nobody clears it away. What it is for is on record first."""
    live = directories.live(owner.attempt_id)
    with directories.alone():
        os.mkdir(live, 0o711)
        data = {name: getattr(owner, name) for name in Owner.__dataclass_fields__}
        write_atomic(f"{live}/{OWNER}", json.dumps(data).encode(), durable=False)
        fd = os.open(f"{live}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(fd)


def sweep(directories: NodeDirectories) -> list[str]:
    """Clear away after all attempts that nobody owns any more. Returns what could not be done, in words."""
    failures = []
    with directories.alone():
        for attempt_id in os.listdir(f"{directories.state}/live"):
            try:
                if not _is_owned(directories, attempt_id):
                    _clear_away(directories, attempt_id)
            except (CgroupError, VolumeError, OSError) as error:
                failures.append(f"{attempt_id}: {error}")
    return failures


def _is_owned(directories: NodeDirectories, attempt_id: str) -> bool:
    """By sandbox-exec, or still by an init that Slurm is about to kill."""
    live = directories.live(attempt_id)
    return os.path.exists(f"{live}/{LOCK}") and (
        attempt_files.is_locked(f"{live}/{LOCK}") or attempt_files.lock_is_held(directories.attempt(attempt_id))
    )


def _clear_away(directories: NodeDirectories, attempt_id: str) -> None:
    """The live directory goes last: as long as it is there, the rest is found again."""
    owner = _read_owner(directories, attempt_id)
    if owner is not None:
        _record_end(directories, owner)
        if owner.boot_id == exit_record.boot_id():
            remove_nested(owner.remains, EMPTY_WITHIN_SECONDS)
        give_all_back(Place(owner.place).root, attempt_id, owner.volumes)
    remove_directories(directories, attempt_id)


def remove_directories(directories: NodeDirectories, attempt_id: str) -> None:
    """Raises OSError."""
    remove_workspace(directories.run_of(attempt_id))
    remove_workspace(directories.live(attempt_id))


def _read_owner(directories: NodeDirectories, attempt_id: str) -> Owner | None:
    try:
        with open(f"{directories.live(attempt_id)}/{OWNER}", "rb") as file:
            data: dict[str, Any] = json.load(file)
        return Owner(**{**data, "remains": tuple(data["remains"]), "volumes": tuple(data.get("volumes", ()))})
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None  # a power cut


def _record_end(directories: NodeDirectories, owner: Owner) -> None:
    """The init's own record if it came to that; else that nobody knows."""
    place = Place(owner.place)
    if place.has_ended:
        return
    directory = directories.attempt(owner.attempt_id)
    try:
        record = attempt_files.read_exit(directory)
    except ValueError:
        record = None
    notes = attempt_files.read_notes(directory)
    if record is not None:
        end = end_of(record, lambda _: Usage(), notes.words if notes else {})
    else:
        state = attempt_files.read_state(directory)
        here = owner.boot_id == exit_record.boot_id()
        end = End(
            outcome=Unknown(KILLED if here else REBOOTED),
            reason=Reason.LOST if here else Reason.NODE_REBOOT,
            ended_ns=time.time_ns(),
            started_ns=state.started_ns if state else None,
            message=KILLED if here else REBOOTED,
        )
    document = exit_document(record, Ended(end, ()), owner.attempt_id, owner.allocation)
    try:
        place.write(EXIT, document, durable=True)
    except OSError:  # the shared directory is away: then it is told here
        kept = directories.kept(owner.attempt_id)
        os.makedirs(kept.directory, 0o711, exist_ok=True)
        kept.write(EXIT, document, durable=True)
