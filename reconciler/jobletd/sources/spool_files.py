"""Reading the spool directory safely: which files count, whether they may be trusted, whether they are complete.

Everything goes through descriptors (``openat``, ``fstat``), so that what was checked is what is read.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from joblet.errors import JobletError
from joblet.manifest import Manifest, ManifestErrors, read_declared
from joblet.manifest.errors import ManifestError

MAX_FILE_BYTES = 16 << 20
_SUFFIXES = (".yml", ".yaml", ".json")
# Names that editors give to what is not meant yet: backups, locks, swap files, vim's probe, emacs' autosave.
_TEMPORARY = re.compile(
    r"^[.#_~]|[~#]$|^4913\.|\.(?:swp|swx|swo|tmp|bak|orig|part)\.[a-z]+$|\.sb-[0-9a-f]+-\w+\.[a-z]+$"
)
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class SpoolUnavailable(JobletError):
    """The directory itself cannot be read or trusted; this says nothing about the files in it."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells that a file has not changed since it was read."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    mode: int
    owner: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """A good file. places: line and column of the names, by key."""

    manifests: tuple[Manifest, ...]
    places: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that is not acted upon. reason: CamelCase, for the event."""

    reason: str
    errors: tuple[ManifestError, ...]


class Absent(Enum):
    """Nothing to say about a file right now."""

    BEING_WRITTEN = "being written"
    GONE = "gone"


Content = Loaded | Refused | Absent
Reader = Callable[[bytes, str], Loaded | Refused]


def is_manifest_name(name: str) -> bool:
    """Only ``*.yml *.yaml *.json``; no dotfiles, no editors' temporary files."""
    return name.endswith(_SUFFIXES) and not _TEMPORARY.search(name)


class SpoolDirectory:
    """One open directory. owner: the uid that it and its files must belong to."""

    def __init__(self, path: str, *, owner: int = 0, read: Reader | None = None) -> None:
        """Open and check it. read: what to make of a file's content, without it ``read_content``. Raises SpoolUnavailable."""
        self.path = path
        self._owner = owner
        self._read_content = read or read_content
        self._undecodable: dict[str, Stamp] = {}
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _unavailable(path, error) from error
        try:
            status = os.fstat(self._fd)
            if fault := _trust_fault(status, owner):
                raise SpoolUnavailable(f"the spool directory {fault}", where=path, todo=_remedy(owner, path))
            self.identity = (status.st_dev, status.st_ino)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> SpoolDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def scan(self, names: Iterable[str] | None = None) -> dict[str, Stamp]:
        """The manifest files that are there now, or which of these are, by name; bytes that are not UTF-8 as ``\\xff``.

        Raises SpoolUnavailable.
        """
        found: dict[str, Stamp] = {}
        try:
            for name in self._names() if names is None else names:
                if not is_manifest_name(name):
                    continue
                try:
                    status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
                except FileNotFoundError:
                    continue  # gone by now
                if (shown := _shown(name)) == name:
                    found[shown] = _stamp(status)
                else:
                    self._undecodable[shown] = _stamp(status)
        except OSError as error:
            raise _unavailable(self.path, error) from error
        return {**self._undecodable, **found}

    def _names(self) -> list[str]:
        with os.scandir(self._fd) as entries:
            return [entry.name for entry in entries]

    def read(self, name: str) -> tuple[Stamp | None, Content]:
        """A file's content with the stamp it was read at. name: as ``scan`` has it."""
        if name in self._undecodable:
            return self._undecodable[name], self._refused(name, "the file's name is not UTF-8; give it another one")
        try:
            fd = os.open(name, _OPEN_FLAGS, dir_fd=self._fd)
        except FileNotFoundError:
            return None, Absent.GONE
        except OSError as error:
            return self._stamp_now(name), self._refused(name, _open_fault(error))
        try:
            status = os.fstat(fd)
            stamp = _stamp(status)
            if not stat.S_ISREG(status.st_mode):
                return stamp, self._refused(name, "is not a regular file")
            if fault := _trust_fault(status, self._owner):
                return stamp, self._refused(name, f"the file {fault}; {_remedy(self._owner, name)}")
            if status.st_size > MAX_FILE_BYTES:
                return stamp, self._refused(name, f"the file is larger than {MAX_FILE_BYTES >> 20} MiB")
            if _is_open_for_writing(fd):
                return stamp, Absent.BEING_WRITTEN
            data = _read_all(fd)
            if _stamp(os.fstat(fd)) != stamp:
                return stamp, Absent.BEING_WRITTEN
        except OSError as error:
            return self._stamp_now(name), self._refused(name, f"cannot be read: {os.strerror(error.errno or 0)}")
        finally:
            os.close(fd)
        return stamp, self._read_content(data, name)

    def _stamp_now(self, name: str) -> Stamp | None:
        try:
            return _stamp(os.stat(name, dir_fd=self._fd, follow_symlinks=False))
        except OSError:
            return None  # it will be looked at again

    def _refused(self, name: str, message: str) -> Refused:
        return Refused("FileRefused", (ManifestError(name, 1, 1, 0, "", message),))


def read_content(data: bytes, name: str) -> Loaded | Refused:
    """What the content of a file of that name says."""
    try:
        return Loaded(*read_declared(data, filename=name))
    except ManifestErrors as found:
        return Refused("InvalidManifest", found.errors)


def is_plain(name: str) -> bool:
    """Whether a name may be looked for as it is: one that is shown with an escape is another one in the directory."""
    return "\\" not in name and _shown(name) == name


def _shown(name: str) -> str:
    """A name that can be stored, logged and sent: Python has undecodable bytes as lone surrogates, which cannot."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_mode,
        status.st_uid,
    )


def _trust_fault(status: os.stat_result, owner: int) -> str:
    if status.st_uid != owner:
        return f"belongs to user {status.st_uid}, not to {'root' if owner == 0 else f'user {owner}'}"
    if status.st_mode & _WRITABLE_BY_OTHERS:
        return f"can be written by others than its owner (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""


def _remedy(owner: int, path: str) -> str:
    return f"chown {owner} {path} && chmod go-w {path}"


def _open_fault(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "is a symbolic link; put the file itself here"
    return f"cannot be opened: {os.strerror(error.errno or 0)}"


def _unavailable(path: str, error: OSError) -> SpoolUnavailable:
    return SpoolUnavailable(
        f"the spool directory cannot be read: {os.strerror(error.errno or 0)}",
        where=path,
        todo="nothing was changed; it is tried again",
    )


def _is_open_for_writing(fd: int) -> bool:
    """The kernel grants a read lease only on a file that nobody has open for writing (fcntl(2), F_SETLEASE).

    A writer that comes while we hold the lease waits the microseconds until we let go, and we get a signal: SIGURG,
    which is ignored by default, instead of SIGIO, which kills.
    """
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        # Other errors: a file system without leases. Then a half-written file shows as invalid, or changes again.
        return error.errno == errno.EAGAIN
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def _read_all(fd: int) -> bytes:
    parts = []
    left = MAX_FILE_BYTES + 1
    while left > 0 and (part := os.read(fd, min(left, 1 << 20))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
