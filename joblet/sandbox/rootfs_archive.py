"""Unpacks the tar archive of a root file system, which may be hostile: nothing is ever written outside of the new directory.

Every name is walked part by part by descriptors that follow no link, so that no order of entries leads out. Absolute links inside
are as they must be: they mean the job's own root. What a job gets from us anyway (all below /dev) is left out; device nodes
elsewhere, and what is neither file, directory nor link, are refused. Set-user-id bits are taken away.

Runs in a process of its own (``main``) with a bound on its memory, which ends with the daemon: a header may say anything, and a
decompressor believe it.
"""

from __future__ import annotations

import errno
import json
import lzma
import os
import resource
import shutil
import signal
import sys
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from joblet.errors import JobletError
from joblet.sandbox.syscalls import PR_SET_PDEATHSIG, prctl

LARGEST_ID = 65535  # a job has no others
MAX_ENTRIES = 2_000_000
MAX_BYTES = 64 << 30
MEMORY_BYTES = 512 << 20
KEPT_BITS = 0o1777
PARSER_FAULTS = (ValueError, ArithmeticError, LookupError, RecursionError)  # tarfile, over headers that nobody wrote
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class RootfsError(JobletError):
    """A root file system that cannot be used."""


def unpack(file: IO[bytes], path: str, directory: str, *, max_bytes: int = MAX_BYTES) -> None:
    """Unpack the archive into ``directory``, which is empty. path: for messages. Raises RootfsError, OSError."""
    try:
        with tarfile.open(fileobj=file, mode="r:*") as archive:
            unpacking = _Unpacking(archive, path, directory, max_bytes)
            try:
                unpacking.all()
            finally:
                unpacking.close()
    except MemoryError as error:
        what = f"needs more than {MEMORY_BYTES >> 20} MiB of memory to be unpacked"
        raise RootfsError(what, where=path, todo="compress it less, or give a directory") from error
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, *PARSER_FAULTS) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the host's; without a number it is the decompressor's
        todo = "give a whole tar archive, plain or compressed by gzip, bzip2 or xz; or a directory"
        raise RootfsError(f"is no archive that can be read: {error}", where=path, todo=todo) from error


class _Unpacking:
    """One archive on its way. All is done relative to the descriptor of the directory."""

    def __init__(self, archive: tarfile.TarFile, path: str, directory: str, max_bytes: int) -> None:
        self._archive = archive
        self._path = path
        self._top = os.open(directory, _DIRECTORY)
        self._bytes_left = max_bytes

    def close(self) -> None:
        os.close(self._top)

    def all(self) -> None:
        for number, member in enumerate(self._archive):
            if number >= MAX_ENTRIES:
                raise self.refusal(member, f"the archive has more than {MAX_ENTRIES} entries")
            self.one(member)

    def one(self, member: tarfile.TarInfo) -> None:
        parts = self.parts_of(member, member.name)
        if parts[:1] == ["dev"] and len(parts) > 1:
            return
        if not parts:
            if member.isdir():
                self.finish(member, self._top)
            return
        with self.parent(member, parts) as parent:
            try:
                self.make(member, parent, parts[-1])
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise self.refusal(member, f"cannot be unpacked ({error.strerror})") from error

    def make(self, member: tarfile.TarInfo, parent: int, name: str) -> None:
        """Put one entry into its directory; what had its name before gives way, but for a directory."""
        if member.isdir():
            self.make_directory(member, parent, name)
            return
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)
        if member.isfile():
            self.make_file(member, parent, name)
        elif member.issym():
            self.make_link(member, parent, name)
        elif member.islnk():
            source = self.parts_of(member, member.linkname)
            if not source:
                raise self.refusal(member, "is a link to the root")
            with self.parent(member, source) as source_parent:
                os.link(source[-1], name, src_dir_fd=source_parent, dst_dir_fd=parent, follow_symlinks=False)
        else:
            kind = "a device node" if member.isdev() and not member.isfifo() else "neither file, directory nor link"
            raise self.refusal(member, f"is {kind}")

    def make_directory(self, member: tarfile.TarInfo, parent: int, name: str) -> None:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            self.finish(member, fd)
        finally:
            os.close(fd)

    def make_file(self, member: tarfile.TarInfo, parent: int, name: str) -> None:
        self._bytes_left -= member.size
        if self._bytes_left < 0:
            raise self.refusal(member, "is too much: what the archive holds is larger than is allowed")
        source = self._archive.extractfile(member)
        assert source is not None  # it is a file
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(name, flags, 0o600, dir_fd=parent), "wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
            target.flush()
            self.finish(member, target.fileno())

    def make_link(self, member: tarfile.TarInfo, parent: int, name: str) -> None:
        depth = len(self.parts_of(member, member.name)) - 1
        if not member.linkname.startswith("/"):
            for part in member.linkname.split("/"):
                depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
                if depth < 0:
                    raise self.refusal(member, f"is a link that leads out, to {member.linkname!r}")
        os.symlink(member.linkname, name, dir_fd=parent)
        os.chown(name, *self.owner_of(member), dir_fd=parent, follow_symlinks=False)

    def finish(self, member: tarfile.TarInfo, fd: int) -> None:
        os.fchown(fd, *self.owner_of(member))
        os.fchmod(fd, member.mode & KEPT_BITS)
        os.utime(fd, (member.mtime, member.mtime))

    def owner_of(self, member: tarfile.TarInfo) -> tuple[int, int]:
        if not (0 <= member.uid <= LARGEST_ID and 0 <= member.gid <= LARGEST_ID):
            raise self.refusal(member, f"belongs to {member.uid}:{member.gid}; a job has ids up to {LARGEST_ID}")
        return member.uid, member.gid

    def parts_of(self, member: tarfile.TarInfo, name: str) -> list[str]:
        if name.startswith("/"):
            raise self.refusal(member, f"{name!r} is absolute")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise self.refusal(member, f"{name!r} leads out")
        return parts

    @contextmanager
    def parent(self, member: tarfile.TarInfo, parts: list[str]) -> Iterator[int]:
        """The directory of an entry, made if it is missing; never through a link."""
        fd = os.dup(self._top)
        try:
            for part in parts[:-1]:
                try:
                    below = os.open(part, _DIRECTORY, dir_fd=fd)
                except FileNotFoundError:
                    os.mkdir(part, 0o755, dir_fd=fd)
                    below = os.open(part, _DIRECTORY, dir_fd=fd)
                except OSError as error:
                    raise self.refusal(member, f"lies below {part!r}, which is no directory") from error
                os.close(fd)
                fd = below
            yield fd
        finally:
            os.close(fd)

    def refusal(self, member: tarfile.TarInfo, why: str) -> RootfsError:
        return RootfsError(f"entry {member.name!r} {why}", where=self._path, todo="make the archive anew without it")


def main() -> int:
    """``PATH DIRECTORY``, the archive on standard input. What is wrong goes to standard output, as JSON."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    path, directory = sys.argv[1:]
    try:
        unpack(sys.stdin.buffer, path, directory)
    except RootfsError as error:
        print(json.dumps([error.what, error.where, error.todo]))
        return 1
    except OSError as error:
        print(
            json.dumps(
                [f"cannot be unpacked: {error.strerror}", path, "make room" if error.errno == errno.ENOSPC else ""]
            )
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
