"""The one place that writes a file atomically. Imported by the init too, hence only ``os``."""

import os

from joblet.crash_points import reached

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def remove_unfinished(directory: str) -> None:
    """Remove the temporary files of writers that were killed. For a directory in which nobody else writes now."""
    for name in os.listdir(directory):
        if name.startswith(".") and name.endswith(".tmp"):
            os.unlink(os.path.join(directory, name))


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
        except BaseException:
            os.unlink(temporary, dir_fd=dir_fd)
            raise
        finally:
            os.close(fd)
        reached("file.written")
        os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        if durable:
            os.fsync(dir_fd)
    finally:
        if own_dir_fd is not None:
            os.close(own_dir_fd)
