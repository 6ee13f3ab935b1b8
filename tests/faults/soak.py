"""Thousands of jobs while daemon, launcher and inits are killed at random; then it must all add up: ``make soak MINUTES=60``.

In rounds: clients ask for jobs in every way there is while a killer strikes; then it is quiet, everything comes to its end, and
an audit from outside compares what was asked with what the jobs themselves wrote and with what is on record. Then all is taken
away, and nothing may be left. A seed, printed, gives the same jobs and the same strikes again, though not the same timing.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from joblet.api.v1 import job_pb2
from joblet.sandbox import syscalls
from tests.faults.asking import Caller, Client, GrpcClient, RnxClient, SpoolClient
from tests.faults.killing import Killer, inits, is_init
from tests.faults.ledger import Asked, Audit, Journal
from tests.faults.workload import JOURNAL_VOLUME, Kind
from tests.integration.host import Host, cgroup_directories, eventually, job_host
from tests.integration.network_stage import Stage, stage
from tests.integration.processes import command_name
from tests.leaks import LeakCheck
from tests.timing import PATIENCE

ROUND_SECONDS = 60.0
REST_SECONDS = 1.2  # between two strikes, on average
QUIET_WITHIN_SECONDS = 120.0
LOG_KEPT = "/var/tmp/joblet-soak-daemon.log"  # of a soak that found something
PORT = 50051  # in a network namespace of our own


@dataclass
class Soak:
    """A host under fire. counts: for people; wrong: what does not add up, in words."""

    host: Host
    place: Stage
    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    rounds: int = 0

    def __post_init__(self) -> None:
        self.killer = Killer(self.host, random.Random(f"{self.seed} kills"))
        self.caller = Caller(self.host)
        self.caller.apply(JOURNAL_VOLUME)
        eventually(lambda: (self.host.root / "run/volumes/journal").is_dir(), what="the journal's volume")

    def round(self, seconds: float) -> None:
        """Ask and strike for so long, then look at what came of it, and clear away."""
        self.rounds += 1
        prefix = f"r{self.rounds}-"
        clients = self.under_fire(prefix, seconds)
        asked = {name: one for client in clients for name, one in client.asked.items()}
        for client in clients:
            for name, one in client.asked.items():
                if one.job.kind is Kind.SERVICE:
                    client.take_away(self.caller, name)
        self.wait_until_quiet(asked)
        audit = Audit(self.host, Journal.take(self.host), self.killer.victims)
        audit.check(list(asked.values()), prefix)
        self.counts += audit.counts
        self.counts.update(f"jobs by {one.job.way}" for one in asked.values())
        self.counts["jobs"] += len(asked)
        self.apply_again(asked)
        for client in clients:
            self.counts += client.caller.counts
            for name in client.asked:
                client.take_away(self.caller, name)
        self.wait_until_gone()
        self.wrong += [f"round {self.rounds}: {what}" for what in (*audit.wrong, *self.left_over())]

    def under_fire(self, prefix: str, seconds: float) -> list[Client]:
        ending = threading.Event()
        clients: list[Client] = [
            kind(self.host, prefix, random.Random(f"{self.seed} {prefix} {kind.way}"), ending)
            for kind in (GrpcClient, SpoolClient, RnxClient)
        ]
        for client in clients:
            client.start()
        try:
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline and not any(client.error for client in clients):
                time.sleep(self.killer.rng.expovariate(1 / REST_SECONDS))  # between two strikes: any moment is as good
                self.killer.strike()
        finally:
            ending.set()
            for client in clients:
                client.join()
        for client in clients:
            if client.error is not None:
                raise client.error
        return clients

    def wait_until_quiet(self, asked: dict[str, Asked]) -> None:
        """Until every job is known, in the form that was asked for last, and nothing runs."""
        wanted = {
            name: one.generation for name, one in asked.items() if not one.deleted and one.job.kind is not Kind.SERVICE
        }

        def missing() -> list[str]:
            present = {job.name: job for job in self.caller.all_jobs()}
            late = [f"{name} absent" for name, generation in wanted.items() if name not in present]
            late += [
                f"{name} generation {present[name].generation}"
                for name, generation in wanted.items()
                if name in present and present[name].generation != generation
            ]
            late += [f"{name} there still: {state_of(present[name])}" for name in present.keys() - wanted.keys()]
            return late + [f"{job.name} {job.runs[0].phase}" for job in self.caller.open_jobs()]

        wait_until_empty(missing, "all jobs known and at their end")

    def apply_again(self, asked: dict[str, Asked]) -> None:
        """The same once more changes nothing."""
        jobs = [one for one in asked.values() if one.job.way == "grpc" and not one.deleted]
        jobs = [one for one in jobs if one.job.kind is not Kind.SERVICE]
        for start in range(0, len(jobs), 100):
            batch = jobs[start : start + 100]
            results = self.caller.apply("\n---\n".join(one.job.manifest(one.generation) for one in batch))
            self.wrong += [
                f"applied again: {result.name} {result.action}" for result in results if result.action != "unchanged"
            ]
        self.wrong += [f"applied again: {job.name} {job.runs[0].phase}" for job in self.caller.open_jobs()]

    def wait_until_gone(self) -> None:
        wait_until_empty(lambda: [state_of(job) for job in self.caller.all_jobs()], "all jobs gone")

    def left_over(self) -> list[str]:
        """What ended attempts left on the host. What is just being removed is waited for."""

        def look() -> list[str]:
            state = self.host.root / "state"
            found = [str(path) for name in ("attempts", "work") for path in (state / name).iterdir()]
            found += [str(path) for base in cgroup_directories(self.host.cgroup_base) for path in base.glob("job-*")]
            cables = (
                name for name in self.place.interfaces() - self.place.bare if name.startswith("jb") and len(name) > 14
            )
            found += [f"interface {name}" for name in cables]
            found += [f"loop device of {image}" for image in loop_images(self.host) if "/volumes/" not in image]
            # One is the spare; what it has below itself ends with it.
            found += [f"process {pid} {command_name(pid)}" for pid in filter(is_init, inits(self.host))][1:]
            return found

        try:
            wait_until_empty(look, "nothing left of ended attempts")
        except AssertionError as error:
            return [str(error)]
        return []

    def close(self) -> None:
        """Take everything away, also after a failure: one of the volumes is mounted where the whole machine sees it."""
        journal = self.host.root / "run/volumes/journal"
        try:
            if self.host.daemon is None or self.host.daemon.poll() is not None:
                self.host.start(within=QUIET_WITHIN_SECONDS)
            for file in self.host.spool.glob("*.yml"):
                file.unlink()
            for job in self.caller.all_jobs():
                if job.source.startswith("grpc:"):
                    self.caller.delete(job.name)
            self.wait_until_gone()
            for name in ("volume/journal", "volume/shelf"):
                self.caller.delete(name)
            wait_until_empty(lambda: [str(path) for path in journal.parent.iterdir()], "the volumes gone")
        finally:
            self.caller.channel.close()
            if journal.is_mount():
                syscalls.umount2(str(journal), syscalls.MNT_DETACH)

    def summary(self) -> str:
        return f"{self.counts['jobs']:,} jobs, {self.killer.counts.total():,} killed, {len(self.wrong)} wrong"

    def report(self, seconds: float) -> str:
        kills = ", ".join(f"{count} {what}" for what, count in sorted(self.killer.counts.items()))
        counts = "\n".join(f"  {count:>9,} {what}" for what, count in sorted(self.counts.items()))
        verdict = "\n".join(f"WRONG {what}" for what in self.wrong) or "it all adds up"
        return (
            f"soak of {seconds:.0f} s, {self.rounds} rounds, seed {self.seed}\n  killed: {kills}\n{counts}\n{verdict}"
        )


def wait_until_empty(look: Callable[[], list[str]], what: str) -> None:
    deadline = time.monotonic() + QUIET_WITHIN_SECONDS * PATIENCE
    while found := look():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {QUIET_WITHIN_SECONDS * PATIENCE:g} s: {what}; {len(found)}: {found[:8]}")
        time.sleep(0.2)


def state_of(job: job_pb2.Job) -> str:
    phase = job.runs[0].phase if job.runs else "no run"
    return f"{job.name} generation {job.generation} {phase}{' deleting' if job.deleting else ''} {job.source}"


def loop_images(host: Host) -> list[str]:
    images = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            image = path.read_text().strip()
        except OSError:
            continue  # it was detached just now
        if str(host.root) in image:
            images.append(image)
    return images


@contextmanager
def soak(seed: int) -> Iterator[Soak]:
    """A host of its own, in a network namespace of its own. At the end it is gone, and so is all that it made."""
    with stage() as place, job_host(port=PORT, within=place.within) as host:
        under = Soak(host, place, seed)
        try:
            yield under
        finally:
            under.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="how long, in all (default: 2)")
    parser.add_argument("--seed", type=int, default=None, help="of an earlier soak (default: a new one)")
    chosen = parser.parse_args()
    if os.geteuid() != 0:
        print("soak: needs root, as all that makes jobs", file=sys.stderr)
        return 2
    seed = chosen.seed if chosen.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", flush=True)
    check = LeakCheck()
    begin = time.monotonic()
    with soak(seed) as under:
        while time.monotonic() - begin < chosen.minutes * 60 and not under.wrong:
            try:
                under.round(min(ROUND_SECONDS, chosen.minutes * 60))
            except AssertionError as error:
                under.wrong.append(f"round {under.rounds}: {error}")
            print(f"round {under.rounds}, {time.monotonic() - begin:.0f} s: {under.summary()}", flush=True)
        print(under.report(time.monotonic() - begin), flush=True)
        if under.wrong:
            shutil.copy(under.host.daemon_log, LOG_KEPT)
            print(f"the daemon's log: {LOG_KEPT}")
    for leak in (leaks := check.leaks(patience=PATIENCE)):
        print(f"left behind: {leak}", file=sys.stderr)
    return 1 if leaks or under.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
