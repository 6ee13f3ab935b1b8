"""Waiting for a run: by Watch, through restarts of the daemon, with a bound where one is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from joblet.api.v1 import job_pb2
from rnx import exit_codes
from rnx.daemon import Daemon
from rnx.failures import ClientError, NotFound, Unreachable, WaitTimedOut
from rnx.output.words import duration

FINAL = ("COMPLETED", "FAILED", "STOPPED")
RECONNECT_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0

Done = Callable[[job_pb2.Run], bool]


def is_final(run: job_pb2.Run) -> bool:
    return run.phase in FINAL


def state_of(run: job_pb2.Run) -> str:
    """For people who wait."""
    if run.HasField("array"):
        from rnx.output.arrays import summary

        return f"{run.phase} ({summary(run.array)})"
    return f"{run.phase}{f' ({run.reason})' if run.reason else ''}"


class Patience:
    """How long a daemon that is away is waited for: it may be restarted or upgraded, and jobs go on meanwhile."""

    def __init__(self, seconds: float = RECONNECT_SECONDS, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """The daemon has answered."""
        self._gone_since: float | None = None
        self._pause = FIRST_PAUSE_SECONDS

    def wait(self, error: ClientError) -> None:
        """A pause before the next try; raises the error when there have been enough."""
        now = self._clock()
        if self._gone_since is None:
            self._gone_since = now
        if now - self._gone_since > self._seconds:
            raise error
        time.sleep(self._pause)
        self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)


def wait_for_run(
    daemon: Daemon,
    ref: str,
    done: Done,
    *,
    seconds: float | None = None,
    tell: Callable[[str], None] | None = None,
) -> job_pb2.Run:
    """The run, once ``done`` says so. ref: a run's id, or a job's name for whatever is its latest run.

    seconds: how long, None for ever. tell: gets the state for people. Raises WaitTimedOut, NotFound, Unreachable.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    job = daemon.get(ref)  # a mistake shows at once; only a daemon that was there is waited for
    run_id = "" if ref == job.name else job.runs[0].id
    patience = Patience()
    last = job.runs[0] if job.runs else None
    while True:
        try:
            for run in _changes(daemon, job.name, run_id, deadline):
                patience.reset()
                last = run
                if done(run):
                    return run
                if tell is not None:
                    tell(f"{job.name}: {state_of(run)}")
        except Unreachable as error:
            if deadline is None or time.monotonic() < deadline:
                patience.wait(error)
        if deadline is not None and time.monotonic() >= deadline:
            state = f"is {last.phase}" if last is not None else "has no run"
            raise WaitTimedOut(
                f"{job.name} {state} after {duration(seconds)}", todo=f"it goes on; rnx status {job.name} shows it"
            )


def _changes(daemon: Daemon, name: str, run_id: str, deadline: float | None) -> Iterator[job_pb2.Run]:
    """The state of the run meant, now and after each change; ends when the watch does."""
    left = None if deadline is None else max(0.001, deadline - time.monotonic())
    for event in daemon.watch(name, seconds=left):
        if event.type == job_pb2.WatchEvent.DELETED:
            if run_id:
                yield daemon.get(run_id).runs[0]  # it outlives its job in the history
            raise NotFound(f"the job {name} was deleted", todo="rnx list shows what there is")
        if event.type == job_pb2.WatchEvent.SYNCED:
            continue
        if not run_id:
            yield from event.job.runs[:1]
        elif found := [run for run in event.job.runs if run.id == run_id]:
            yield found[0]
        else:  # a newer run took its place in what is shown
            yield daemon.get(run_id).runs[0]


def changes_of(daemon: Daemon, name: str, run_id: str) -> Iterator[job_pb2.Run]:
    """The state of a job's run (empty: of its latest one), now and after each change, until the daemon is gone."""
    return _changes(daemon, name, run_id, None)


def exit_code_of(run: job_pb2.Run) -> int:
    """The exit code that a client passes on for a run that is over."""
    if run.phase == "COMPLETED":
        return exit_codes.OK
    if run.HasField("array"):
        return exit_codes.FAILURE
    if run.reason == "OOMKilled":
        return exit_codes.OOM_KILLED
    if run.reason == "TimedOut":
        return exit_codes.TIMED_OUT
    if run.HasField("exit_code") and run.exit_code:
        return run.exit_code
    return exit_codes.UNKNOWN_END if run.phase == "FAILED" else exit_codes.FAILURE
