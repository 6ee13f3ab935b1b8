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
IDS = "ids"  # a link with the first id in it, in attempts of earlier versions
IDS_NAME = "ids-"  # and the first id: another name of the notes, whatever these say
STATE_BYTES = 4096
LONGEST_ID = 10  # digits
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


def begin_notes(directory: str, notes: AttemptNotes) -> None:
    """The first ones, before anything is launched: what of them is not whole was never needed. With the range of ids as a name
    beside them, which is whole or not there; it costs no file of its own."""
    path = f"{directory}/{ATTEMPT}"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(_notes_text(notes))
    os.link(path, f"{directory}/{IDS_NAME}{notes.id_first}")


def write_notes(directory: str, notes: AttemptNotes) -> None:
    """Others than before."""
    write_atomic(f"{directory}/{ATTEMPT}", _notes_text(notes), durable=False)


def _notes_text(notes: AttemptNotes) -> bytes:
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
    return json.dumps(data).encode()


def held_ids(directory: str) -> set[int]:
    """The first id of its range, from all places; two if a damaged disk has them differ: then neither may be given away."""
    texts: list[str] = []
    with suppress(OSError):
        texts.append(os.readlink(f"{directory}/{IDS}"))
    with suppress(OSError):
        texts += [name.removeprefix(IDS_NAME) for name in os.listdir(directory) if name.startswith(IDS_NAME)]
    found = {int(text) for text in texts if text.isascii() and text.isdecimal() and len(text) <= LONGEST_ID}
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
    return is_locked(f"{directory}/{exit_record.STATE}")


def is_locked(path: str) -> bool:
    """Whether somebody holds the exclusive lock of a file, flock(2); nobody does if there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def remove(directory: str) -> bool:
    """Remove it with its files. Whether it is gone: no, if it has directories, which are none of ours."""
    try:
        for name in os.listdir(directory):
            os.unlink(f"{directory}/{name}")
        os.rmdir(directory)
    except FileNotFoundError:
        return not os.path.lexists(directory)
    except IsADirectoryError:
        return False
    return True


def start_time_of(pid: int) -> int | None:
    """When a process started, in clock ticks since boot: field 22 of proc_pid_stat(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None
