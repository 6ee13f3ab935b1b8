"""The process that tries one reader: ``python -m tests.faults.fuzz.worker NAME --seed S --seconds N [--only NUMBER]``.

Its standard output ends with one JSON line: how many inputs were tried, accepted and refused, the slowest, the memory; and the
finding, if there was one. If it dies, ``current`` in its directory has the number of the input that it died of.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import mmap
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from types import FrameType

from tests.faults.fuzz.mutation import Mutation
from tests.faults.fuzz.reader import Reader, make
from tests.timing import PATIENCE

WARM_UP = 200  # inputs, before memory is measured
AT_LEAST = 40  # inputs
SHOWN_BYTES = 2000


class Hang(BaseException):
    """An input takes too long; not an Exception, so that no reader takes it for one of its own."""


def hang(_: int, __: FrameType | None) -> None:
    raise Hang


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Trial:
    """A reader under way."""

    def __init__(self, name: str, reader: Reader, seed: str, current: Path) -> None:
        self.reader = reader
        self.seed = f"{name}/{seed}"
        self.mutation = Mutation(reader.samples, reader.tokens)
        self.counts = {True: 0, False: 0}
        self.slowest = (0.0, 0)
        self.start_bytes = 0
        with current.open("wb+") as file:
            file.truncate(8)
            self.current = mmap.mmap(file.fileno(), 8)

    def run(self, seconds: float) -> dict[str, object]:
        deadline = time.monotonic() + seconds
        number = 0
        finding = None
        fewest = max(len(self.reader.samples), AT_LEAST)  # on a busy machine the time may be over after some
        while finding is None and (time.monotonic() < deadline or number < fewest):
            finding = self.one(number)
            number += 1
            if number in (min(WARM_UP, fewest // 2), WARM_UP):
                self.start_bytes = resident_bytes()
        return self.report(number, finding)

    def one(self, number: int) -> dict[str, object] | None:
        self.current[:] = number.to_bytes(8, sys.byteorder)
        data = self.mutation.input(self.seed, number)
        limit = self.reader.seconds * PATIENCE
        faulthandler.dump_traceback_later(2 * limit + 5, exit=True)  # a hang in C code
        signal.setitimer(signal.ITIMER_REAL, limit)
        started = time.monotonic()
        try:
            accepted = self.reader.read(data)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except (Exception, Hang) as error:
            signal.setitimer(signal.ITIMER_REAL, 0)
            trace = "".join(traceback.format_exception(error))
            what = f"took longer than {limit:g} s" if isinstance(error, Hang) else repr(error)
            return {"number": number, "what": what, "trace": trace, "input": repr(data[:SHOWN_BYTES])}
        finally:
            faulthandler.cancel_dump_traceback_later()
        self.counts[accepted] += 1
        self.slowest = max(self.slowest, (time.monotonic() - started, number))
        return None

    def report(self, tried: int, finding: dict[str, object] | None) -> dict[str, object]:
        grown = peak_bytes() - self.start_bytes if self.start_bytes else 0
        if finding is None and grown > self.reader.grows_bytes:
            finding = {"number": tried, "what": f"memory grew by {grown >> 20} MiB", "trace": "", "input": ""}
        return {
            "tried": tried,
            "accepted": self.counts[True],
            "refused": self.counts[False],
            "slowest_seconds": round(self.slowest[0], 3),
            "slowest_number": self.slowest[1],
            "grown_bytes": max(grown, 0),
            "finding": finding,
        }


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--only", type=int, help="try this input alone, and print it")
    parser.add_argument("--current", type=Path, help="where the number of the input under way is kept")
    chosen = parser.parse_args()
    signal.signal(signal.SIGALRM, hang)
    with tempfile.TemporaryDirectory(prefix=f"joblet-test-{os.getppid()}-fuzz-") as directory:
        reader = make(chosen.name, Path(tempfile.mkdtemp(dir=directory)))
        trial = Trial(chosen.name, reader, chosen.seed, chosen.current or Path(directory, "current"))
        if chosen.only is None:
            report = trial.run(chosen.seconds)
        else:
            print(repr(trial.mutation.input(trial.seed, chosen.only)))
            report = trial.report(1, trial.one(chosen.only))
    print(json.dumps(report))
    return 0 if report["finding"] is None else 1


if __name__ == "__main__":
    sys.exit(main())
