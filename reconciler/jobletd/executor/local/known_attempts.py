"""What is known of the attempts on this host: what is true of each is read from the kernel and from its directory each time.

What is kept in memory are descriptors to be woken by, ends, which do not change any more, and what an attempt's directory says of
its launch: nothing that could be wrong after a restart. See DESIGN section 2 for the table behind ``look``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping

from joblet.cgroup import Hierarchy
from joblet.clock import Clock
from jobletd.executor import Ended, NeverSubmitted, Observation, Pending, Running
from jobletd.executor.local import attempt_files, limit_status, watching
from jobletd.executor.local.attempt_files import AttemptNotes
from jobletd.executor.local.outcome import end_of
from jobletd.model import AttemptId, End, LimitStatus, Reason, Unknown, Usage

ADOPTED_SECONDS = 0.1  # between two looks at an init that cannot tell us what it does


class KnownAttempts:
    """directory_of: an attempt's. boot_id: of this host as it runs now."""

    def __init__(
        self, directory_of: Callable[[AttemptId], str], hierarchy: Hierarchy, clock: Clock, boot_id: str
    ) -> None:
        self._directory_of = directory_of
        self._hierarchy = hierarchy
        self._clock = clock
        self._boot_id = boot_id
        self._nudge: Callable[[AttemptId], None] = _nobody
        self._watched: dict[AttemptId, watching.Watched] = {}
        self._notes: dict[AttemptId, AttemptNotes] = {}
        self._limits: dict[AttemptId, tuple[LimitStatus, ...]] = {}
        self._ended: dict[AttemptId, Ended] = {}

    def subscribe(self, nudge: Callable[[AttemptId], None]) -> None:
        self._nudge = nudge

    @property
    def running(self) -> int:
        """How many there are, as far as that was seen."""
        return sum(1 for attempt in self._watched if attempt not in self._ended)

    @property
    def images(self) -> set[str]:
        """Root file systems that they have."""
        return {notes.image for notes in self._notes.values()}

    def watched(self, attempt_id: AttemptId) -> watching.Watched | None:
        return self._watched.get(attempt_id)

    def forget(self, attempt_id: AttemptId) -> watching.Watched | None:
        """Returns who was watched, to see it off."""
        for kept in (self._ended, self._notes, self._limits):
            kept.pop(attempt_id, None)
        return self._watched.pop(attempt_id, None)

    def close(self) -> None:
        for watched in self._watched.values():
            watched.close()
        self._watched.clear()

    # --- looking ------------------------------------------------------------------------------------------------------

    def usage_since(self, attempt_id: AttemptId, before: Usage | None) -> Usage:
        """All unknown once its cgroup is gone."""
        seconds = before.cpu_seconds if before is not None else None
        if before is not None and seconds is not None and self._hierarchy.cpu_seconds(attempt_id) == seconds:
            return before
        return self.usage(attempt_id)

    def look(self, attempt_id: AttemptId) -> Observation:
        if attempt_id in self._ended:
            return self._ended[attempt_id]
        if (watched := self._watched.get(attempt_id)) is not None and watched.is_silent:
            return Pending()  # its pipe would have told of a start, its pidfd of an end: then we are nudged
        directory = self._directory_of(attempt_id)
        if not os.path.isdir(directory):
            return NeverSubmitted()
        if (ended := self._look_for_record(attempt_id, directory)) is not None:
            return ended
        if not attempt_files.lock_is_held(directory):
            return self._look_at_dead(attempt_id, directory)
        state = attempt_files.read_state(directory)
        if attempt_id not in self._watched:
            self._adopt(attempt_id, state)
        if state is None or state.started_ns is None:
            if state is not None and (watched := self._watched.get(attempt_id)) and not watched.tells_start:
                asyncio.get_running_loop().call_later(ADOPTED_SECONDS, self._nudge, attempt_id)
            return Pending()
        return Running(state.started_ns, self.usage(attempt_id), self.limits_of(attempt_id))

    def _look_for_record(self, attempt_id: AttemptId, directory: str) -> Ended | None:
        """With its exit record an attempt has ended, even if its init still makes it durable."""
        try:
            record = attempt_files.read_exit(directory)
        except ValueError as error:
            return self._over(attempt_id, Unknown(str(error)), Reason.LOST)
        if record is None:
            return None
        notes = self.notes_of(attempt_id)
        end = end_of(record, self._parse_usage, notes.words if notes else {})
        self._ended[attempt_id] = Ended(end, self.limits_of(attempt_id))
        return self._ended[attempt_id]

    def _look_at_dead(self, attempt_id: AttemptId, directory: str) -> Observation:
        """Nobody holds the lock: the record once more, for an init that ended in between, or what its absence means."""
        if (ended := self._look_for_record(attempt_id, directory)) is not None:
            return ended
        state = attempt_files.read_state(directory)
        if state is None:
            return NeverSubmitted()
        if state.boot_id != self._boot_id:
            return self._over(attempt_id, Unknown("the host was started anew while it ran"), Reason.NODE_REBOOT)
        self._hierarchy.kill(attempt_id)
        return self._over(
            attempt_id, Unknown("its init ended without a record; its exit code is not known"), Reason.LOST
        )

    def _over(self, attempt_id: AttemptId, outcome: Unknown, reason: Reason) -> Ended:
        state = attempt_files.read_state(self._directory_of(attempt_id))
        end = End(
            outcome=outcome,
            reason=reason,
            ended_ns=self._clock.wall_ns(),
            started_ns=state.started_ns if state else None,
            message=outcome.why,
            usage=self.usage(attempt_id),
        )
        ended = Ended(end, self.limits_of(attempt_id))
        self._ended[attempt_id] = ended
        return ended

    def _adopt(self, attempt_id: AttemptId, state: attempt_files.InitState | None) -> None:
        """Watch an init that we did not start. Its pid is believed only if start time and boot agree and the lock is held
        after its pidfd was opened."""
        loop = asyncio.get_running_loop()
        directory = self._directory_of(attempt_id)
        if state is None or state.boot_id != self._boot_id:
            # Still setting itself up: it will say who it is, or be gone.
            loop.call_later(0.1, self._nudge, attempt_id)
            return
        try:
            pidfd = os.pidfd_open(state.pid)
        except ProcessLookupError:
            loop.call_soon(self._nudge, attempt_id)
            return
        if attempt_files.start_time_of(state.pid) == state.start_time and attempt_files.lock_is_held(directory):
            self.watch(attempt_id, watching.Watched(pidfd, None))
        else:
            os.close(pidfd)
            loop.call_later(0.1, self._nudge, attempt_id)

    def watch(self, attempt_id: AttemptId, watched: watching.Watched) -> None:
        if (old := self._watched.get(attempt_id)) is not None:
            old.close()  # of a launch that came to nothing
        self._watched[attempt_id] = watched
        watched.start(lambda: self._nudge(attempt_id))

    def usage(self, attempt_id: AttemptId) -> Usage:
        return limit_status.usage_of(self._hierarchy.usage(attempt_id))

    def _parse_usage(self, raw: Mapping[str, str]) -> Usage:
        return limit_status.usage_of(self._hierarchy.parse_usage(raw))

    # --- of the launch ------------------------------------------------------------------------------------------------

    def begin(self, attempt_id: AttemptId, notes: AttemptNotes) -> None:
        """Note it in its directory, which is new."""
        attempt_files.begin_notes(self._directory_of(attempt_id), notes)
        self._notes[attempt_id] = notes

    def note(self, attempt_id: AttemptId, notes: AttemptNotes) -> None:
        attempt_files.write_notes(self._directory_of(attempt_id), notes)
        self._notes[attempt_id] = notes

    def notes_of(self, attempt_id: AttemptId) -> AttemptNotes | None:
        if attempt_id not in self._notes:
            notes = attempt_files.read_notes(self._directory_of(attempt_id))
            if notes is None:
                return None
            self._notes[attempt_id] = notes
        return self._notes[attempt_id]

    def limits_changed(self, attempt_id: AttemptId) -> tuple[LimitStatus, ...]:
        """As they are now."""
        self._limits.pop(attempt_id, None)
        return self.limits_of(attempt_id)

    def limits_of(self, attempt_id: AttemptId) -> tuple[LimitStatus, ...]:
        """As read back from the kernel, once an attempt; changed limits are read anew."""
        notes = self.notes_of(attempt_id)
        if attempt_id not in self._limits and notes is not None:
            readings = self._hierarchy.read_limits(attempt_id, notes.limits)
            if not os.path.isdir(self._hierarchy.directories(attempt_id)[0]):
                return ()
            self._limits[attempt_id] = limit_status.statuses(readings, notes)
        return self._limits.get(attempt_id, ())


def _nobody(_: AttemptId) -> None:
    """Nudges go nowhere before somebody subscribes."""
