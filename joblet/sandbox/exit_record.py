"""The exit record: how an attempt ended, written by its init, so that it survives the death of every other process.

Also the names of the files in an attempt's directory, which launcher, init and the daemon share. JSON is written by hand: the
json module would bring ``re`` and ``enum`` into every init's memory.
"""

import os

from joblet.atomicfile import write_atomic, write_unnamed

VERSION = 1
# Held locked by the init as long as it lives; empty until the command may have been executed.
STATE = "state"
EXIT = "exit.json"
_ESCAPES = {code: f"\\u{code:04x}" for code in (*range(32), 0x7F)} | {ord('"'): '\\"', ord("\\"): "\\\\"}


def exited(code: int) -> dict[str, object]:
    return {"type": "exited", "code": code}


def killed(signal: int) -> dict[str, object]:
    return {"type": "killed", "signal": signal}


def not_started(code: int, error: str) -> dict[str, object]:
    """code: 126 or 127 as shells give."""
    return {"type": "not_started", "code": code, "error": error}


def unknown(why: str) -> dict[str, object]:
    return {"type": "unknown", "why": why}


def write(dir_fd: int, record: dict[str, object], *, durable: bool, made: int = -1) -> None:
    """Put the record into the attempt's directory, whole or not at all. Raises OSError.

    durable: False leaves it visible but not yet safe from a power cut: see ``make_durable``. made: a file without a name that may
    become it.
    """
    data = to_json({"version": VERSION, **record}).encode("utf-8", "replace") + b"\n"
    if made >= 0 and not durable and write_unnamed(made, EXIT, data, dir_fd):
        return
    write_atomic(EXIT, data, dir_fd=dir_fd, durable=durable)


def make_durable(dir_fd: int) -> None:
    """fsync the record and its directory. The record may be gone already: then the daemon has stored what it says."""
    try:
        fd = os.open(EXIT, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    except FileNotFoundError:
        return
    os.fsync(fd)
    os.close(fd)
    os.fsync(dir_fd)


def to_json(value: object) -> str:
    """JSON of dicts, texts, numbers, booleans and None."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{to_json(key)}:{to_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str):
        return f'"{value.translate(_ESCAPES)}"'
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    raise TypeError(f"{type(value).__name__} has no place in an exit record")


def boot_id() -> str:
    """This boot's id: what tells a reboot from a restart."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()
