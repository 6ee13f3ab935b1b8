"""The node's conditions: lasting facts about the daemon's own state, which people and monitoring look at."""

from __future__ import annotations

from joblet.clock import Clock
from jobletd.backup.keeper import BackupKeeper
from jobletd.backup.recovery import moment
from jobletd.backup.settling import PutBack
from jobletd.headroom import Headroom
from jobletd.model import Condition
from jobletd.store import Store


class StateFacts:
    """put_back: the backup that this daemon started from, if it did."""

    def __init__(
        self, headroom: Headroom, store: Store, backups: BackupKeeper, put_back: PutBack | None, clock: Clock
    ) -> None:
        self._headroom = headroom
        self._store = store
        self._backups = backups
        self._put_back = put_back
        self._clock = clock
        self._started_ns = clock.wall_ns()
        self._since: dict[tuple[str, str], int] = {}

    def conditions(self) -> list[Condition]:
        now_ns = self._clock.wall_ns()
        found = self._headroom.conditions(now_ns)
        failure = self._store.failure
        found.append(self._fact("StoreWritable", type(failure).__name__ if failure else "", str(failure or ""), now_ns))
        failed = self._backups.failure
        found.append(self._fact("BackedUp", "BackupFailed" if failed else "", failed, now_ns))
        if self._put_back is not None:
            message = told_of(self._put_back)
            found.append(Condition("PutBack", "True", "StartedFromBackup", message, self._started_ns))
        return found

    def _fact(self, kind: str, wrong: str, message: str, now_ns: int) -> Condition:
        status = "False" if wrong else "True"
        since_ns = self._since.setdefault((kind, status), now_ns)
        self._since.pop((kind, "True" if wrong else "False"), None)
        return Condition(kind, status, wrong or "Fine", message, since_ns)


def told_of(put_back: PutBack) -> str:
    return f"the state is that of {put_back.origin}, made {moment(put_back.created_ns)}: changes since then are lost"
