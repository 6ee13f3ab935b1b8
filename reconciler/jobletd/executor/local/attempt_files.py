"""An attempt's directory, read: what the kernel's lock and the files in it say about the attempt."""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
from contextlib import suppress
from dataclasses import astuple, dataclass
from typing import Any

from joblet.atomicfile import write_atomic
from joblet.cgroup import CgroupLimits
from joblet.sandbox import exit_record
from jobletd.executor.local.launch_spec import limits_from_json, limits_to_json
from jobletd.executor.local.record_shape import are_limits, fault_of_record
from jobletd.model import LimitStatus

ATTEMPT = "attempt.json"
IDS = "ids"
STATE_BYTES = 4096
VERSION_SHOWN = 40
# Whole lines only; a pid of seven digits is the largest that Linux gives.
_STATE = re.compile(r"exec ([0-9]{1,7}) ([0-9]{1,18}) (\S+)\n(?:started ([0-9]{1,18}|[0-8][0-9]{18})\n)?", re.ASCII)
# Of the notes. Later versions add, and change or drop nothing: a daemon adopts what one of before or after it has launched.
VERSION = 1


@dataclass(frozen=True, slots=True)
class AttemptNotes:
    """What the executor itself noted before the launch, for the next daemon.

    id_first: the host id that is 0 in its range. words: limits for messages. disk: as asked, or empty. disk_in_memory: its
    workspace is a tmpfs. image: the root file system it runs on, as the store of images names it. given: limits of what it was
    given from outside its cgroup (a network), as read back.
    """

    id_first: int
    limits: CgroupLimits
    left_out: tuple[tuple[str, str, str], ...]  # (limit, asked, why it is not enforced)
    words: dict[str, str]
    disk: str
    disk_in_memory: bool = True
    image: str = ""
    given: tuple[LimitStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class InitState:
    """What init wrote: from before the command's exec on. started_ns: once the exec was seen to succeed."""

    pid: int
    start_time: int
    boot_id: str
    started_ns: int | None


def write_notes(directory: str, notes: AttemptNotes) -> None:
    data = {
        "version": VERSION,
        "id_first": notes.id_first,
        "limits": limits_to_json(notes.limits),
        "left_out": notes.left_out,
        "words": notes.words,
        "disk": notes.disk,
        "disk_in_memory": notes.disk_in_memory,
        "image": notes.image,
        "given": [astuple(limit) for limit in notes.given],
    }
    write_atomic(f"{directory}/{ATTEMPT}", json.dumps(data).encode(), durable=False)


def note_ids(directory: str, id_first: int) -> None:
    """Put on record which range of ids it has, apart from the other notes: a link is whole or not there."""
    os.symlink(str(id_first), f"{directory}/{IDS}")


def held_ids(directory: str) -> set[int]:
    """The first id of its range, from both places; two if a damaged disk has them differ: then neither may be given away."""
    found = set()
    with suppress(OSError, ValueError):
        found.add(int(os.readlink(f"{directory}/{IDS}")))
    if (notes := read_notes(directory)) is not None:
        found.add(notes.id_first)
    return {id_first for id_first in found if 0 < id_first < 1 << 32}


def read_notes(directory: str) -> AttemptNotes | None:
    """None if there are none, or a power cut left only a part, or a damaged disk something else."""
    try:
        with open(f"{directory}/{ATTEMPT}", "rb") as file:
            data: dict[str, Any] = json.load(file)
        notes = AttemptNotes(
            data["id_first"],
            limits_from_json(data["limits"]),
            tuple((name, asked, why) for name, asked, why in data["left_out"]),
            data["words"],
            data["disk"],
            data["disk_in_memory"],
            data["image"],
            tuple(LimitStatus(*limit) for limit in data.get("given", ())),
        )
        return notes if _are_notes(notes) else None
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _are_notes(notes: Any) -> bool:
    """Raises ValueError, TypeError, KeyError or AttributeError where they are so wrong that they cannot be asked."""
    words = [*(word for limit in notes.given for word in (limit.name, limit.asked, limit.effective, limit.message))]
    words += [notes.disk, notes.image, *notes.words.values(), *(word for entry in notes.left_out for word in entry)]
    "".join(words).encode()
    return (
        type(notes.id_first) is int
        and 0 < notes.id_first < 1 << 32
        and isinstance(notes.disk_in_memory, bool)
        and all(isinstance(limit.enforced, bool) for limit in notes.given)
        and 0 <= float(notes.words["grace"].removesuffix("s")) < math.inf
        and are_limits(notes.limits)
    )


def read_exit(directory: str) -> dict[str, Any] | None:
    """The exit record; None if there is none, or only what a power cut left of one.

    Raises ValueError for one of another version, or one that is whole and yet makes no sense.
    """
    try:
        with open(f"{directory}/{exit_record.EXIT}", "rb") as file:
            record = json.load(file)
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or "version" not in record:
        return None
    if record["version"] != exit_record.VERSION:  # before anything else: what else is in it, only that version knows
        version = ascii(record["version"])[:VERSION_SHOWN]
        raise ValueError(f"{directory}/{exit_record.EXIT}: version {version} is not known")
    if not isinstance(record.get("outcome"), dict):
        return None
    if fault := fault_of_record(record):
        raise ValueError(f"{directory}/{exit_record.EXIT}: is damaged: {fault}")
    return record


def read_state(directory: str) -> InitState | None:
    """Init's state file; None if the command was certainly never executed."""
    try:
        with open(f"{directory}/{exit_record.STATE}", errors="replace") as file:
            text = file.read(STATE_BYTES)
    except FileNotFoundError:
        return None
    if not text:
        return None
    match = _STATE.match(text)
    if match is None:
        # A power cut may leave a torn file: it was about to be executed, by whom is lost.
        return InitState(0, 0, "", None)
    return InitState(int(match[1]), int(match[2]), match[3], int(match[4]) if match[4] else None)


def lock_is_held(directory: str) -> bool:
    """Whether the init lives: it holds the lock as long as it does, and nothing else ever can."""
    try:
        fd = os.open(f"{directory}/{exit_record.STATE}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def start_time_of(pid: int) -> int | None:
    """When a process started, in clock ticks since boot: field 22 of proc_pid_stat(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None
