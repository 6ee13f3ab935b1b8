"""The small files by which a job hands results on: read by init once its command and all that it started have ended."""

from __future__ import annotations

import os
import stat

MAX_BYTES = 4096
DIRECTORY = "/work/outputs"


def prepare(work: str, uid: int, gid: int) -> None:
    """Make the directory in the workspace, unless the job brings it."""
    directory = f"{work}/outputs"
    if not os.path.lexists(directory):
        os.mkdir(directory, 0o755)
        os.chown(directory, uid, gid)


def collect(names: list[str]) -> tuple[dict[str, str], str]:
    """The values of those that are there, and what is wrong with the others. No link is followed, nothing special is opened."""
    found: dict[str, str] = {}
    problems = []
    try:
        directory = os.open(DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        return {}, f"{DIRECTORY}: {error.strerror}"
    for name in names:
        try:
            found[name] = read(directory, name)
        except FileNotFoundError:
            problems.append(f"{name} was not written")
        except OSError as error:
            problems.append(f"{name}: {error.strerror}")
        except ValueError as error:
            problems.append(f"{name} {error}")
    os.close(directory)
    return found, "; ".join(problems)


def read(directory: int, name: str) -> str:
    """Without the newline at its end. Raises OSError, and ValueError for what is no small text."""
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ValueError("is no regular file")
        data = os.read(fd, MAX_BYTES + 1)
    finally:
        os.close(fd)
    if len(data) > MAX_BYTES:
        raise ValueError(f"is longer than {MAX_BYTES} bytes")
    if b"\0" in data:
        raise ValueError("holds a NUL byte")
    try:
        return data.decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
