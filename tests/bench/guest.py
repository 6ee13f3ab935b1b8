"""Peers that need systemd or cgroup v2, side by side with us in a guest that systemd booted; its times are only good for ratios.

``python -m tests.bench.guest MODULE`` is what runs in there: the module's ``in_guest``, whose findings leave as a line of JSON.
"""

from __future__ import annotations

import importlib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from tests.bench.report import NotRun
from tests.bench.rounds import Timing
from tests.guest import boot

Peer = Callable[[list[str]], object]
MARK = "FOUND "
LAST_LINES = 3


@dataclass(frozen=True)
class Found:
    """refused: what those said that cannot be run in there either. rates: a second."""

    timings: dict[str, Timing] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)

    def line(self) -> str:
        return MARK + json.dumps(asdict(self))

    @classmethod
    def read(cls, output: str) -> Found | None:
        """What a guest printed; None if it did not get as far."""
        for line in output.splitlines():
            if line.startswith(MARK):
                content = json.loads(line.removeprefix(MARK))
                timings = {name: Timing(**timing) for name, timing in content.pop("timings").items()}
                return cls(timings, **content)
        return None


def run(module: str, *, timeout_seconds: float) -> Found | NotRun:
    """Boot, run that module's part, and shut down. What went wrong is not an error: such a guest needs packages, and patience."""
    name = "systemd-run, and all in the guest"
    said, trouble = io.BytesIO(), io.BytesIO()
    guest = boot.Guest(
        command=(sys.executable, "-m", __name__, module),
        init=boot.Init.SYSTEMD,
        environment={"JOBLET_TEST_PATIENCE": "10"},
        timeout_seconds=timeout_seconds,
    )
    try:
        status = boot.run(guest, stdout=said, stderr=trouble)
    except boot.GuestError as error:
        return NotRun(name, str(error))
    if found := Found.read(said.getvalue().decode(errors="replace")):
        return found
    last = [line for line in trouble.getvalue().decode(errors="replace").splitlines() if line.strip()][-LAST_LINES:]
    return NotRun(name, f"{' '.join(last)} (status {status})")


if __name__ == "__main__":
    print(importlib.import_module(sys.argv[1]).in_guest().line(), flush=True)
