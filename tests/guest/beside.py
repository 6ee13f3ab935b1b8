"""``make test``: the guests beside the native run. Each of the two waits about as much as it computes, so that together they
are through sooner than one after the other.

python -m tests.guest.beside TEST... -- COMMAND [ARGUMENT]...

TEST: what the guests run. What COMMAND says is shown as it comes, what the guests say after it.
Exit status: the first that is not 0.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from typing import BinaryIO

from tests.guest.__main__ import terminate
from tests.guest.boot import REPOSITORY

LOOK_SECONDS = 0.2


def run_beside(tests: list[str], command: list[str]) -> int:
    """Both are through when this returns, or have been told to end."""
    with tempfile.TemporaryFile() as said:
        guests = subprocess.Popen(
            [sys.executable, "-m", "tests.guest", *tests], cwd=REPOSITORY, stdout=said, stderr=said
        )
        running = [guests]
        try:
            native = subprocess.Popen(command, cwd=REPOSITORY)
            running.append(native)
            statuses = [native.wait()]
            told = threading.Event()
            follower = threading.Thread(target=follow, args=(said, told), name="output of the guests")
            follower.start()
            try:
                statuses.append(guests.wait())
            finally:
                told.set()
                follower.join()
        finally:
            for process in running:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
    return next((status for status in statuses if status), 0)


def follow(said: BinaryIO, told: threading.Event) -> None:
    """Show what is in that file, and what comes, until ``told`` that this is all."""
    position = 0
    while True:
        last = told.wait(LOOK_SECONDS)
        while data := os.pread(said.fileno(), 1 << 16, position):  # its offset is the writers'
            position += len(data)
            sys.stdout.buffer.write(data)
        sys.stdout.flush()
        if last:
            return


def main(arguments: list[str]) -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, terminate)
    split = arguments.index("--")
    return run_beside(arguments[:split], arguments[split + 1 :])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
