"""From the answers of probes to whether an attempt is ready: a pure step, for one attempt."""

from __future__ import annotations

from dataclasses import dataclass, replace

from joblet.manifest import Probe


@dataclass(frozen=True, slots=True)
class Health:
    """Of one attempt. ready: as it counts now. started: it was ready once. given_up: to be restarted, if that is asked for.

    successes, failures: in a row. why: of the last failure.
    """

    ready: bool = False
    started: bool = False
    successes: int = 0
    failures: int = 0
    why: str = ""
    given_up: bool = False


def after_probe(health: Health, probe: Probe, why: str, age_seconds: float) -> Health:
    """What follows from one more answer. why: it is not well; empty: it is. age_seconds: since the command started."""
    if not why:
        successes = health.successes + 1
        ready = health.ready or successes >= probe.successes
        return replace(
            health,
            successes=successes,
            failures=0,
            ready=ready,
            started=health.started or ready,
            why="",
            given_up=False,
        )
    failures = health.failures + 1
    lost = failures >= probe.failures
    if not health.started:
        return replace(health, successes=0, failures=failures, why=why, given_up=age_seconds >= probe.startup_seconds)
    return replace(health, successes=0, failures=failures, why=why, ready=health.ready and not lost, given_up=lost)


def unknown(health: Health, why: str) -> Health:
    """Nobody can tell how it is: it counts as not ready, and nothing is done to it for that."""
    return replace(health, successes=0, ready=False, why=why, given_up=False)


def pause_seconds(health: Health, probe: Probe) -> float:
    """Until the next probe: who starts is asked more often."""
    return probe.interval_seconds if health.started else min(probe.interval_seconds, 1.0)
