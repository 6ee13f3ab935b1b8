"""One call under a filter, in a process of its own that has one thread: a fork of the test runner may hang in others' locks."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from joblet.sandbox import syscalls

REPOSITORY = Path(__file__).parents[3]
OTHERWISE = 254


def under_the_filter(program: bytes, name: str, *arguments: int | str) -> int:
    """Make one of CALLS under the filter: 0, or the errno it got, or what the program it became ended with."""
    command = [sys.executable, "-m", __name__, program.hex(), name, json.dumps(arguments)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, cwd=REPOSITORY, check=False)
    assert done.returncode != OTHERWISE, done.stderr.decode()
    return done.returncode


def raw(number: int, *arguments: int) -> None:
    """A raw system call that raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    ctypes.set_errno(0)
    if libc.syscall(ctypes.c_long(number), *(ctypes.c_long(argument) for argument in arguments)) == -1:
        raise OSError(ctypes.get_errno(), "syscall")


def fork() -> None:
    os.waitpid(os.fork() or os._exit(0), 0)


def open_socket(family: int, kind: int) -> None:
    socket.socket(family, kind).close()


def become(*command: str) -> None:
    os.execv(command[0], command)


CALLS: dict[str, Callable[..., None]] = {"raw": raw, "fork": fork, "open_socket": open_socket, "become": become}


def main(program: str, name: str, arguments: str) -> None:
    try:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        syscalls.set_seccomp_filter(bytes.fromhex(program))
        CALLS[name](*json.loads(arguments))
    except OSError as error:
        os._exit(error.errno or 255)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(OTHERWISE)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
