"""The soak's clients: each asks for jobs in its own way, and asks again until it is answered, as whoever means it does."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import grpc

from joblet.api.v1 import job_pb2, job_pb2_grpc
from tests.faults.ledger import Asked
from tests.faults.workload import Kind, SoakJob, Way, choose
from tests.integration.host import Host, eventually
from tests.timing import PATIENCE

T = TypeVar("T")
ANSWERED_WITHIN_SECONDS = 120.0
CALL_SECONDS = 10.0
OPEN_AT_MOST = 150  # runs that are not over: with more, nobody asks for further ones
OPEN_PHASES = ("SCHEDULED", "PENDING", "INITIALIZING", "RUNNING")
# What a client sees of a daemon that is killed, or not there yet.
AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
CHANNEL_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 250),
]


class Caller:
    """Calls over a channel that outlives any daemon."""

    def __init__(self, host: Host) -> None:
        self.channel = grpc.insecure_channel(f"unix:{host.root}/run/joblet.sock", CHANNEL_OPTIONS)
        self.jobs = job_pb2_grpc.JobServiceStub(self.channel)
        self.counts: Counter[str] = Counter()

    def call(self, function: Callable[..., T], request: object) -> T:
        """Until it is answered. Raises RpcError for an answer that is an error."""
        deadline = time.monotonic() + ANSWERED_WITHIN_SECONDS * PATIENCE
        while True:
            try:
                answer = function(request, timeout=CALL_SECONDS * PATIENCE)
            except grpc.RpcError as error:
                self.counts["calls without an answer"] += 1
                if error.code() not in AGAIN or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                self.counts["calls"] += 1
                return answer

    def apply(self, text: str) -> list[job_pb2.ApplyResult]:
        request = job_pb2.ApplyRequest(manifest=text.encode(), filename="soak.yml")
        return list(self.call(self.jobs.Apply, request).results)

    def settled(self, function: Callable[..., T], request: object, as_done: grpc.StatusCode) -> T | None:
        """Call; an answer that says that it is done already, perhaps by an earlier try, is None."""
        try:
            return self.call(function, request)
        except grpc.RpcError as error:
            if error.code() is not as_done:
                raise
            return None

    def delete(self, name: str) -> None:
        self.settled(self.jobs.Delete, job_pb2.DeleteRequest(name=name), grpc.StatusCode.NOT_FOUND)

    def stop(self, name: str) -> bool:
        """Whether it is acknowledged; else there is nothing to stop."""
        stopped = self.settled(self.jobs.Stop, job_pb2.StopRequest(ref=name), grpc.StatusCode.FAILED_PRECONDITION)
        return stopped is not None

    def all_jobs(self) -> list[job_pb2.Job]:
        return list(self.call(self.jobs.List, job_pb2.ListRequest(page_size=5000)).jobs)

    def open_jobs(self) -> list[job_pb2.Job]:
        """Those whose latest run is not over."""
        return list(self.call(self.jobs.List, job_pb2.ListRequest(page_size=5000, phases=OPEN_PHASES)).jobs)


class Client(threading.Thread):
    """Asks for jobs in one way until told to end; what it was told is in ``asked`` then."""

    way: Way
    rest = 0.1  # seconds between two rounds, at least

    def __init__(self, host: Host, prefix: str, rng: random.Random, ending: threading.Event) -> None:
        super().__init__(name=f"asks by {self.way}")
        self.host = host
        self.prefix = prefix
        self.rng = rng
        self.ending = ending
        self.caller = Caller(host)
        self.asked: dict[str, Asked] = {}
        self.later: list[tuple[float, str]] = []  # when a job gets the second word, by the monotonic clock
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.ending.is_set():
                self.say_second_words(time.monotonic())
                if len(self.caller.open_jobs()) < OPEN_AT_MOST:
                    self.ask()
                self.ending.wait(self.rest * self.rng.uniform(0.5, 1.5))
            self.say_second_words(float("inf"))
        except BaseException as error:  # told by who waits for us
            self.error = error
        finally:
            self.caller.channel.close()

    def ask(self) -> None:
        raise NotImplementedError

    def next_job(self) -> SoakJob:
        job = choose(self.rng, self.way, f"{self.prefix}{self.way}-{len(self.asked)}")
        self.asked[job.name] = Asked(job, 1)
        if job.kind in (Kind.STOPPED, Kind.SUPERSEDED, Kind.RESIZED, Kind.DELETED):
            self.later.append((time.monotonic() + self.rng.uniform(0, 3), job.name))
        return job

    def say_second_words(self, now: float) -> None:
        due = [name for at, name in self.later if at <= now]
        self.later = [(at, name) for at, name in self.later if at > now]
        for name in due:
            self.say_second_word(self.asked[name])

    def say_second_word(self, asked: Asked) -> None:
        raise NotImplementedError

    def take_away(self, caller: Caller, name: str) -> None:
        """Delete the job, in this way."""
        caller.delete(name)


class GrpcClient(Client):
    """Several manifests a call, stops, deletes, new generations."""

    way = Way.GRPC

    def ask(self) -> None:
        jobs = [self.next_job() for _ in range(self.rng.choice((1, 1, 5, 40)))]
        results = self.caller.apply("\n---\n".join(job.manifest() for job in jobs))
        assert [result.generation for result in results] == [1] * len(jobs), results

    def say_second_word(self, asked: Asked) -> None:
        name = asked.job.name
        match asked.job.kind:
            case Kind.STOPPED:
                asked = replace(asked, stopped=self.caller.stop(name))
            case Kind.DELETED:
                self.caller.delete(name)
                asked = replace(asked, deleted=True)
            case _:
                (result,) = self.caller.apply(asked.job.manifest(2))
                assert result.generation == 2, result
                asked = replace(asked, generation=2)
        self.asked[name] = asked


class SpoolClient(Client):
    """One file for some jobs, another for each of the rest."""

    way = Way.SPOOL

    def ask(self) -> None:
        jobs = [self.next_job() for _ in range(self.rng.choice((1, 1, 2, 10)))]
        together = [job for job in jobs if job.kind in (Kind.SHORT, Kind.LONG, Kind.RETRIED)]
        for job in jobs:
            if job not in together:
                self.put(job.name, job.manifest())
        if together:
            self.put(together[0].name, "\n---\n".join(job.manifest() for job in together))

    def put(self, name: str, text: str) -> None:
        """As an editor may: written in place, or beside it and renamed."""
        path = self.host.spool / f"{name}.yml"
        if self.rng.random() < 0.5:
            path.write_text(text)
        else:
            beside = path.with_suffix(".part")
            beside.write_text(text)
            beside.rename(path)

    def say_second_word(self, asked: Asked) -> None:
        name = asked.job.name
        if asked.job.kind is Kind.DELETED:
            (self.host.spool / f"{name}.yml").unlink()
            self.asked[name] = replace(asked, deleted=True)
        elif self.ending.is_set() or self.is_known(name):
            # Before the first form was seen there would be but one generation.
            eventually(lambda: self.is_known(name), within=ANSWERED_WITHIN_SECONDS, what=f"job {name}")
            self.put(name, asked.job.manifest(2))
            self.asked[name] = replace(asked, generation=2)
        else:
            self.later.append((time.monotonic() + 0.5, name))

    def is_known(self, name: str) -> bool:
        request = job_pb2.GetRequest(ref=name)
        return self.caller.settled(self.caller.jobs.Get, request, grpc.StatusCode.NOT_FOUND) is not None

    def take_away(self, caller: Caller, name: str) -> None:
        (self.host.spool / f"{name}.yml").unlink(missing_ok=True)


class RnxClient(Client):
    """``rnx run``, over TLS."""

    way = Way.RNX
    rest = 0.5

    def ask(self) -> None:
        job = self.next_job()
        deadline = time.monotonic() + ANSWERED_WITHIN_SECONDS * PATIENCE
        while True:
            ended = self.host.rnx("run", *job.flags())
            self.caller.counts["rnx run"] += 1
            # An earlier try may have been taken, though its answer never came.
            if ended.status == 0 or f"there is a job {job.name} already" in ended.err:
                return
            self.caller.counts["rnx run without an answer"] += 1
            assert time.monotonic() < deadline, ended
