"""What a load test says at its end, and the memory of the daemon meanwhile."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import psutil


@dataclass
class Report:
    """figures: for people. wrong: what broke a promise."""

    figures: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.wrong.append(what)

    def print(self, title: str) -> None:
        print(f"== {title}")
        for name, figure in self.figures.items():
            print(f"{name}: {figure}")
        for what in self.wrong:
            print(f"WRONG: {what}")
        sys.stdout.flush()


class Memory:
    """The daemon's own, as it goes."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.marks: dict[str, float] = {}
        self.most = 0.0

    def sample(self) -> float:
        now = self._process.memory_info().rss / (1 << 20)
        self.most = max(self.most, now)
        return now

    def mark(self, name: str) -> None:
        self.marks[name] = self.sample()

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:.0f} MB" for name, value in self.marks.items()) + f", most {self.most:.0f} MB"
