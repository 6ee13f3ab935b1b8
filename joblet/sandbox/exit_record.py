"""The exit record: how an attempt ended, written by its init, so that it survives the death of every other process.

Also the names of the files in an attempt's directory, which launcher, init and the daemon share.
"""

import json
import os

from joblet.atomicfile import write_atomic

VERSION = 1
LOCK = "lock"
STATE = "state"
EXIT = "exit.json"


def exited(code: int) -> dict[str, object]:
    return {"type": "exited", "code": code}


def killed(signal: int) -> dict[str, object]:
    return {"type": "killed", "signal": signal}


def not_started(code: int, error: str) -> dict[str, object]:
    """code: 126 or 127 as shells give."""
    return {"type": "not_started", "code": code, "error": error}


def unknown(why: str) -> dict[str, object]:
    return {"type": "unknown", "why": why}


def write(dir_fd: int, record: dict[str, object]) -> None:
    """Write the record durably into the attempt's directory. Raises OSError."""
    data = json.dumps({"version": VERSION, **record}, separators=(",", ":")).encode() + b"\n"
    write_atomic(EXIT, data, dir_fd=dir_fd)


def read(attempt_dir: str) -> dict[str, object] | None:
    """The record of an attempt, or None if there is none. Raises ValueError if it is damaged or of a newer version."""
    try:
        with open(os.path.join(attempt_dir, EXIT), "rb") as file:
            record = json.loads(file.read())
    except FileNotFoundError:
        return None
    if not isinstance(record, dict) or record.get("version") != VERSION or not isinstance(record.get("outcome"), dict):
        raise ValueError(f"{attempt_dir}/{EXIT}: not an exit record of version {VERSION}")
    return record


def boot_id() -> str:
    """This boot's id: what tells a reboot from a restart."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()
