"""Named crash points: where a test may have a process of ours die, as by SIGKILL, between two durable steps.

A line ``reached("daemon.intent-stored")`` stands behind each such step. It does something only if the process was started with
JOBLET_CRASH_POINTS in its environment, the path of a directory: a file there with the point's name is removed, and the process
kills itself. So no manifest and no client can bring it about, and it happens once for each file. Imported by launcher and init
too, hence only ``os``. tests/faults/test_crash_points.py walks every point there is in the source.
"""

import os

VARIABLE = "JOBLET_CRASH_POINTS"
_SIGKILL = 9
_directory = os.environ.get(VARIABLE)
_directory_fd: int | None = None


def reached(point: str) -> None:
    """Die here if a test wants it so."""
    if _directory is not None:
        _die_if_armed(point)


def armed() -> bool:
    """Whether a process can die here at all."""
    return _directory is not None


def environment() -> dict[str, str]:
    """What a child of ours gets to have its own; nothing outside of tests."""
    return {} if _directory is None else {VARIABLE: _directory}


def hold() -> None:
    """Before a process leaves the host's tree of files: keep the directory within reach."""
    global _directory_fd
    if _directory is not None:
        _directory_fd = os.open(_directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _die_if_armed(point: str) -> None:
    path = point if _directory_fd is not None else f"{_directory}/{point}"
    try:
        os.unlink(path, dir_fd=_directory_fd)
    except FileNotFoundError:
        return
    os.kill(os.getpid(), _SIGKILL)
    os._exit(128 + _SIGKILL)  # an init is the first process of its namespace, and deaf to a SIGKILL from within
