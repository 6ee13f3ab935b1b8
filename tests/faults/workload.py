"""The soak's jobs: what is asked of the host, as data. Chosen at random; the same seed chooses the same again.

Every job tells the journal, a file in a volume that they all share, when its command begins and when it is through, and takes
a lock there for as long as it lives. So what ran, how often, and whether two ran at once, is known from the jobs alone.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from enum import StrEnum

JOURNAL = "journal"
JOURNAL_VOLUME = """
apiVersion: joblet/v1
kind: Volume
metadata: {name: journal}
spec: {size: 64Mi, type: memory}
---
apiVersion: joblet/v1
kind: Volume
metadata: {name: shelf}
spec: {size: 16Mi}
---
apiVersion: joblet/v1
kind: Secret
metadata: {name: token}
spec: {data: {value: open-sesame}}
"""
SCRIPT = """
say() { echo "$1 $JOBLET_JOB $JOBLET_RUN $JOBLET_ATTEMPT" >>/data/journal; }
say begin
exec 9>>"/data/lock-$JOBLET_JOB"
flock -n 9 || say overlap
echo "begin $JOBLET_ATTEMPT"
n=0
while [ "$n" -lt "$PIECES" ]; do
  [ "$LINES" = 0 ] || seq -f 'line %.0f' 1 "$LINES"
  [ "$PAUSE" = 0 ] || sleep "$PAUSE"
  n=$((n+1))
done
echo "end $JOBLET_ATTEMPT"
say end
[ "$JOBLET_ATTEMPT" -lt "$SUCCEEDS" ] || exit "$CODE"
exit 75
"""
FOR_EVER = 600  # seconds: until somebody ends it


class Kind(StrEnum):
    """What becomes of a job after it was asked for."""

    SHORT = "short"  # ends by itself, within moments
    LONG = "long"  # ends by itself, within seconds
    RETRIED = "retried"  # fails before it succeeds, and has more retries than it needs
    TIMED_OUT = "timed-out"  # runs until its time is up
    STOPPED = "stopped"  # runs until somebody stops it
    SUPERSEDED = "superseded"  # runs until a new generation, which ends by itself, takes its place
    RESIZED = "resized"  # gets another memory limit while it runs
    DELETED = "deleted"  # runs until its manifest is taken away
    SERVICE = "service"  # ends, and is started again, until its manifest is taken away


class Way(StrEnum):
    """How it is asked for."""

    SPOOL = "spool"
    GRPC = "grpc"
    RNX = "rnx"


# Those whose fate takes a second word of the client's come over gRPC or, where a file can say it, by the spool.
KINDS = {
    Way.GRPC: {
        **{Kind.SHORT: 60, Kind.LONG: 8, Kind.RETRIED: 12, Kind.TIMED_OUT: 3, Kind.STOPPED: 5},
        **{Kind.SUPERSEDED: 5, Kind.RESIZED: 3, Kind.DELETED: 3, Kind.SERVICE: 1},
    },
    Way.SPOOL: {
        **{Kind.SHORT: 60, Kind.LONG: 10, Kind.RETRIED: 12, Kind.TIMED_OUT: 3},
        **{Kind.SUPERSEDED: 6, Kind.RESIZED: 3, Kind.DELETED: 5, Kind.SERVICE: 1},
    },
    Way.RNX: {Kind.SHORT: 4, Kind.LONG: 1},
}


@dataclass(frozen=True)
class SoakJob:
    """One job. code: of the attempt that is the last by itself; those before ``succeeds`` exit with 75.

    pieces, lines, pause: it writes so many lines and rests so many seconds, so many times.
    """

    name: str
    way: Way
    kind: Kind
    code: int = 0
    succeeds: int = 1
    retries: int = 0
    pieces: int = 1
    lines: int = 0
    pause: float = 0
    extra: dict[str, object] = field(default_factory=dict)

    @property
    def ends_by_itself(self) -> bool:
        return self.kind in (Kind.SHORT, Kind.LONG, Kind.RETRIED, Kind.RESIZED)

    def environment(self, generation: int = 1) -> dict[str, str]:
        endless = self.kind in (Kind.TIMED_OUT, Kind.STOPPED, Kind.SUPERSEDED, Kind.DELETED) and generation == 1
        return {
            "PIECES": str(self.pieces),
            "LINES": str(self.lines),
            "PAUSE": str(FOR_EVER if endless else f"{self.pause:g}"),
            "SUCCEEDS": str(self.succeeds),
            "CODE": str(self.code),
        }

    def exit_code(self, attempt: int) -> int:
        return 75 if attempt < self.succeeds else self.code

    def output(self, attempt: int) -> bytes:
        """All that one attempt writes if it is let be."""
        piece = b"".join(b"line %d\n" % number for number in range(1, self.lines + 1))
        return b"begin %d\n" % attempt + piece * self.pieces + b"end %d\n" % attempt

    def manifest(self, generation: int = 1) -> str:
        """As one line of JSON, which is YAML too."""
        spec: dict[str, object] = {
            "script": SCRIPT,
            "env": self.environment(generation),
            "volumes": [{"name": JOURNAL, "path": "/data"}],
            "stop": {"grace": "1s"},
            "limits": {"memory": "64Mi"},
            "retry": {"limit": self.retries, "initial": "100ms", "max": "1s"},
        }
        if self.kind is Kind.TIMED_OUT:
            spec["attemptTimeout"] = "1s"
        if self.kind is Kind.SERVICE:
            spec["restart"] = "Always"
        for key, value in self.extra.items():
            spec[key] = [*spec[key], *value] if isinstance(value, list) and key in spec else value  # type: ignore[misc]
        if self.kind is Kind.RESIZED and generation == 2:
            spec["limits"] = {**spec["limits"], "memory": "96Mi"}  # type: ignore[dict-item]
        return json.dumps({"apiVersion": "joblet/v1", "kind": "Job", "metadata": {"name": self.name}, "spec": spec})

    def flags(self) -> list[str]:
        """The same, for ``rnx run``: what it has no flags for is left out."""
        environment = [f"--env={name}={value}" for name, value in self.environment().items()]
        return [f"--name={self.name}", "--volume=journal:/data", *environment, "--", "sh", "-euc", SCRIPT]


def choose(rng: random.Random, way: Way, name: str) -> SoakJob:
    """One more job of this way."""
    kind = rng.choices(list(KINDS[way]), list(KINDS[way].values()))[0]
    lines = rng.choice((0, 0, 1, 20, 20, 300))
    base: dict[str, object] = {}
    if way is not Way.RNX:
        base = rng.choices(
            (
                {},
                {"limits": {"memory": "64Mi", "disk": "8Mi", "io": {"write": "50Mi"}}},  # a loop device
                {"isolation": {"network": "bridge"}},
                {"volumes": [{"name": "shelf", "path": "/shelf"}]},
                {"secrets": [{"name": "token"}], "files": [{"path": "a/b.txt", "content": "b"}]},
            ),
            (70, 5, 10, 8, 7),
        )[0]
    match kind:
        case Kind.SHORT:
            return SoakJob(name, way, kind, rng.choice((0, 0, 0, 1, 7)), lines=lines, extra=base)
        case Kind.LONG:
            pieces = rng.randint(2, 12)
            pause = rng.choice((0.2, 0.5, 0.8))
            lines = rng.choice((1, 50, 2000))
            return SoakJob(name, way, kind, rng.choice((0, 3)), pieces=pieces, lines=lines, pause=pause, extra=base)
        case Kind.RETRIED:
            succeeds = rng.randint(2, 3)
            return SoakJob(name, way, kind, succeeds=succeeds, retries=succeeds + 1, lines=lines, extra=base)
        case Kind.RESIZED:
            return SoakJob(name, way, kind, pieces=4, lines=lines, pause=0.5)
        case Kind.SERVICE:
            return SoakJob(name, way, kind, rng.choice((0, 1)), pause=0.2)
        case _:
            return SoakJob(name, way, kind, lines=lines, extra=base)
