"""The fuzzers that need a launcher or a whole daemon, each with one line of figures."""

from __future__ import annotations

from collections.abc import Callable

from tests.faults.fuzz.connections import QUIET, flood
from tests.faults.fuzz.launcher import fuzz_launcher
from tests.faults.fuzz.requests import fuzz_requests
from tests.integration.host import job_host
from tests.integration.sandbox_attempts import sandboxes

CONNECTIONS = 10_000
Shown = tuple[str, list[str]]
"""The figures, and what was found."""


def try_launcher(seed: str, seconds: float) -> Shown:
    with sandboxes() as stage:
        launched = fuzz_launcher(stage, seed=seed, seconds=seconds)
    return f"{launched.tried:,} messages: {dict(launched.outcomes)}", launched.defects


def try_requests(seed: str, seconds: float) -> Shown:
    with job_host() as host:
        answers = fuzz_requests(host, seed=seed, seconds=seconds)
        log = (host.root / "daemon.log").read_text()
    defects = [*answers.defects, *(["tracebacks in the daemon's log"] if "Traceback" in log else [])]
    return f"{answers.tried:,} calls: {dict(answers.codes)}", defects


def try_connections(seed: str, _: float) -> Shown:
    with job_host() as host:
        host.apply(QUIET)
        flooded = flood(host, seed=seed, connections=CONNECTIONS)
    left = flooded.descriptors_after - flooded.descriptors_before
    return str(flooded), [f"{left} descriptors stay open"] if left > 8 else []


LIVE: dict[str, Callable[[str, float], Shown]] = {
    "launcher": try_launcher,
    "requests": try_requests,
    "connections": try_connections,
}
