"""Both clocks of a host, which stand still until the test moves them."""

from __future__ import annotations

from joblet.clock import BootTime, Moment

SECOND_NS = 1_000_000_000


class SteppedClock:
    """``pass_time`` moves both; ``set_wall`` is somebody setting the wall clock; ``reboot`` begins another boot."""

    def __init__(self) -> None:
        self.now_ns = 1_700_000_000 * SECOND_NS
        self.boot_ns = 100 * SECOND_NS
        self.boots = 1

    def wall_ns(self) -> int:
        return self.now_ns

    def boot_seconds(self) -> float:
        return self.boot_ns / SECOND_NS

    def now(self) -> Moment:
        return Moment(self.now_ns, BootTime(f"boot-{self.boots}", self.boot_ns))

    def pass_time(self, seconds: float) -> None:
        self.now_ns += int(seconds * SECOND_NS)
        self.boot_ns += int(seconds * SECOND_NS)

    def set_wall(self, by_seconds: float) -> None:
        self.now_ns += int(by_seconds * SECOND_NS)

    def reboot(self) -> None:
        self.boots += 1
        self.boot_ns = 5 * SECOND_NS
