"""``make guest-test``: the integration tests in the guest, whole directories in two guests at a time; what lies below
tests/systemd in one that systemd has booted. Also a way in by hand:

python -m tests.guest [PYTEST ARGUMENT]...
python -m tests.guest [--systemd] [--timeout SECONDS] -- COMMAND [ARGUMENT]...
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

from tests.guest.boot import GUEST_FAILED, REPOSITORY, Guest, GuestError, Init, run_here
from tests.guest.parts import run_divided, whole_directories, with_systemd

# Python starts 5 to 10 times slower in the guest, what the kernel does alone is less slow; tests multiply their bounds by this.
PATIENCE = 10
TEST_TIMEOUT_SECONDS = 120
SUITE_TIMEOUT_SECONDS = 1500.0


def tests(arguments: list[str], init: Init) -> Guest:
    """The guest that runs pytest with these arguments."""
    python = REPOSITORY / ".venv/bin/python"
    options = ["-p", "no:cacheprovider", "-p", "tests.guest.durations", f"--timeout={TEST_TIMEOUT_SECONDS * PATIENCE}"]
    return Guest(
        command=(str(python), "-m", "pytest", *options, "--durations=10", *arguments),
        init=init,
        environment={
            "JOBLET_TEST_GUEST": "1",
            "JOBLET_TEST_PATIENCE": str(PATIENCE),
            "PYTHONUNBUFFERED": "1",
            "COLUMNS": "120",
            "PY_COLORS": "0",  # the serial lines are terminals
        },
        timeout_seconds=SUITE_TIMEOUT_SECONDS,
    )


def command(options: list[str], argv: list[str]) -> Guest:
    """The guest that runs this command."""
    parser = argparse.ArgumentParser(prog="python -m tests.guest", usage=__doc__)
    parser.add_argument("--systemd", action="store_true")
    parser.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS")
    chosen = parser.parse_args(options)
    init = Init.SYSTEMD if chosen.systemd else Init.COMMAND
    return Guest(command=tuple(argv), init=init, timeout_seconds=chosen.timeout)


def terminate(number: int, _frame: FrameType | None) -> None:
    """Leave as an exception does, so that the guest ends and its directory goes."""
    sys.exit(128 + number)


def main(arguments: list[str]) -> int:
    signal.signal(signal.SIGTERM, terminate)
    signal.signal(signal.SIGHUP, terminate)
    if not Path("/proc/self/ns/pid").exists():
        print("guest: needs Linux", file=sys.stderr)
        return GUEST_FAILED
    if "--" in arguments:
        split = arguments.index("--")
        guests = [command(arguments[:split], arguments[split + 1 :])]
    elif whole_directories(arguments):
        return run_divided(arguments)
    else:
        booted, others = with_systemd(arguments)
        guests = [tests(booted, Init.SYSTEMD)] if booted else []
        guests += [tests(others, Init.COMMAND)] if others else []
    try:
        statuses = [run_here(guest) for guest in guests]
    except GuestError as error:
        print(f"guest: {error}", file=sys.stderr)
        return GUEST_FAILED
    return next((status for status in statuses if status), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
