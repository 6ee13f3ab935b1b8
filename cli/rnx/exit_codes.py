"""The client's exit codes: a contract with scripts, told in docs/RNX.md."""

from __future__ import annotations

OK = 0
FAILURE = 1  # also: there are differences (diff), the job failed (wait)
INVALID = 2  # wrong usage, manifest or configuration
NOT_FOUND = 3  # no such job or run
UNREACHABLE = 4  # no answer from the daemon
NOT_ALLOWED = 5  # certificate not accepted, or its role may not do that
CONFLICT = 6  # the job is somebody else's, or in a state that forbids it

# With --wait the job's own exit code is passed on; these stand for ends that have none.
TIMED_OUT = 124  # as timeout(1) does
UNKNOWN_END = 125
OOM_KILLED = 137  # 128 + SIGKILL
INTERRUPTED = 130  # 128 + SIGINT: Ctrl-C
OUTPUT_CLOSED = 141  # 128 + SIGPIPE: nobody reads the output any more
