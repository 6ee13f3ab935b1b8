"""The one place that writes a file atomically. Imported by the init too, hence only ``os``."""

import os

from joblet.crash_points import reached

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def remove_unfinished(directory: str) -> None:
    """Remove the temporary files of writers that were killed. For a directory in which nobody else writes now."""
    for name in os.listdir(directory):
        if name.startswith(".") and name.endswith(".tmp"):
            os.unlink(os.path.join(directory, name))


def open_unnamed(directory: str, flags: int) -> int:
    """A file that is nowhere yet, in the file system of ``directory``: O_TMPFILE, open(2). To make one takes a file system much
    longer than to name it, see ``name_file``. flags: how to open it. Raises OSError, also where there is no such thing."""
    return os.open(directory, os.O_TMPFILE | os.O_CLOEXEC | flags, 0o600)


def name_file(fd: int, path: str, dir_fd: int | None = None) -> None:
    """Give a file of ``open_unnamed`` a name that is free. Raises OSError, above all for another file system."""
    os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, dst_dir_fd=dir_fd, follow_symlinks=True)


def write_unnamed(fd: int, path: str, data: bytes, dir_fd: int) -> bool:
    """``write_atomic``, not durable, by a file that was made beforehand. False: it could not be, and there is no such file."""
    try:
        os.ftruncate(fd, 0)
        if os.pwrite(fd, data, 0) != len(data):
            return False
        reached("init.record-written")
        name_file(fd, path, dir_fd)
    except OSError:
        return False
    return True


def make_once(path: str, data: bytes) -> bool:
    """Make a file that is not there yet, for root alone, durable with its name. False: it was there. Raises OSError."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return False
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    sync_directory(os.path.dirname(path))
    return True


def sync_directory(path: str) -> None:
    """Make the names in it durable. Raises OSError."""
    fd = os.open(path, _DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: str, data: bytes, mode: int = 0o600, dir_fd: int | None = None, durable: bool = True) -> None:
    """Replace ``path`` by ``data``: temporary file beside it, write, fsync, rename, fsync of the directory.

    path: with ``dir_fd`` a bare file name in that directory, otherwise any path. mode: permission bits of the file.
    durable: False leaves the fsyncs out, for files whose loss at a power cut does no harm.
    Raises OSError; nothing is left behind then.
    """
    name = os.path.basename(path)
    own_dir_fd = None
    if dir_fd is None:
        dir_fd = own_dir_fd = os.open(os.path.dirname(path) or ".", _DIRECTORY)
    temporary = f".{name}.{os.getpid()}.tmp"
    try:
        fd = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode, dir_fd=dir_fd
        )
        try:
            os.fchmod(fd, mode)
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if durable:
                os.fsync(fd)
            reached("file.written")
            os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        except BaseException:
            os.unlink(temporary, dir_fd=dir_fd)
            raise
        finally:
            os.close(fd)
        if durable:
            os.fsync(dir_fd)
    finally:
        if own_dir_fd is not None:
            os.close(own_dir_fd)
