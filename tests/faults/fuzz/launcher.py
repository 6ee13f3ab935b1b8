"""The launcher's socket, and by it the spec that an init takes: datagrams that are none, and launch specs with anything in them.

No value leads to a place of the host that is there: what is carried out is carried out by root. Marshalled bytes are cut off, not
changed: marshal believes a length that it reads, and whoever holds this socket is the launcher's own parent.
"""

from __future__ import annotations

import array
import copy
import marshal
import os
import random
import select
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from joblet.sandbox import exit_record
from tests.integration.sandbox_attempts import Attempt, Sandboxes
from tests.timing import PATIENCE

ANSWER_SECONDS = 10.0
VALUES: tuple[Any, ...] = (
    None,
    -1,
    0,
    2**70,
    1.5,
    True,
    [],
    {},
    b"\xff",
    "",
    "\x00",
    "/nonexistent/x",
    "a" * 5000,
    [None],
    {"": 1},
)
HONEST_EVERY = 10
AT_LEAST = 60
SETTLED_WITHIN_SECONDS = 5.0


@dataclass(slots=True)
class Launched:
    """What came of it. defects: what may not have happened."""

    outcomes: Counter[str] = field(default_factory=Counter)
    defects: list[str] = field(default_factory=list)

    @property
    def tried(self) -> int:
        return sum(self.outcomes.values())


def fuzz_launcher(sandboxes: Sandboxes, *, seed: str, seconds: float) -> Launched:
    """Bad messages for so long, and now and then an honest one, which the same launcher must carry out."""
    launched = Launched()
    assert sandboxes.process is not None
    pid = sandboxes.process.pid
    honest(sandboxes, launched, "before")
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    deadline = time.monotonic() + seconds
    number = 0
    # On a busy machine the time may be over before each kind has come up.
    while (time.monotonic() < deadline or number < AT_LEAST) and not launched.defects:
        chance = random.Random(f"{seed}/{number}")
        if number % HONEST_EVERY == HONEST_EVERY - 1:
            honest(sandboxes, launched, f"after {number} (seed {seed!r})")
        elif chance.random() < 0.3:
            no_spec(sandboxes, chance, launched, number)
        else:
            wrong_spec(sandboxes, chance, launched, number)
        number += 1
    honest(sandboxes, launched, "at the end")
    if sandboxes.process.poll() is not None:
        launched.defects.append(f"the launcher ended with {sandboxes.process.returncode}")
    elif (now := fewest_descriptors(pid, descriptors + 2)) > descriptors + 2:
        launched.defects.append(f"the launcher has {now} descriptors, and had {descriptors}")
    return launched


def fewest_descriptors(pid: int, enough: int) -> int:
    """How many are open; it has more for an instant, while it rehearses."""
    deadline = time.monotonic() + SETTLED_WITHIN_SECONDS * PATIENCE
    fewest = len(os.listdir(f"/proc/{pid}/fd"))
    while fewest > enough and time.monotonic() < deadline:
        time.sleep(0.01)
        fewest = min(fewest, len(os.listdir(f"/proc/{pid}/fd")))
    return fewest


def honest(sandboxes: Sandboxes, launched: Launched, when: str) -> None:
    """A good spec is carried out."""
    spec = sandboxes.spec(["/bin/true"])
    answer = ask(sandboxes, marshal.dumps(spec), [], launched, f"an honest spec {when}")
    if answer is None:
        return
    if "pid" not in answer[0]:
        launched.defects.append(f"an honest spec {when}: {answer[0]}")
        return
    record = ended(sandboxes, spec, answer, launched)
    if record is None or record["outcome"] != exit_record.exited(0):
        launched.defects.append(f"an honest spec {when}: {record}")
    launched.outcomes["carried out"] += 1


def no_spec(sandboxes: Sandboxes, chance: random.Random, launched: Launched, number: int) -> None:
    """A datagram that is no launch spec at all."""
    whole = marshal.dumps(sandboxes.spec(["/bin/true"]))
    data: bytes | None = None
    fds: list[int] = []
    match chance.randrange(4):
        case 0:
            data = whole[: chance.randrange(len(whole))]
        case 1:
            data = marshal.dumps(chance.choice(VALUES))
        case 2:
            fds = [os.open("/dev/null", os.O_RDONLY)] if chance.random() < 0.5 else list(os.pipe())
        case _:
            fds = []
    answer = ask(sandboxes, data, fds, launched, f"number {number}")
    if answer is not None and "error" not in answer[0]:
        launched.defects.append(f"number {number}: no launch spec, and no error: {answer[0]}")
    launched.outcomes["no spec"] += 1


def wrong_spec(sandboxes: Sandboxes, chance: random.Random, launched: Launched, number: int) -> None:
    """A launch spec with something wrong in it."""
    spec = sandboxes.spec(["/bin/true"])
    wrong = copy.deepcopy(spec)
    for _ in range(chance.randint(1, 2)):
        holder, key = chance.choice(list(places(wrong)))
        if chance.random() < 0.3:
            del holder[key]
        else:
            holder[key] = chance.choice(VALUES)
    answer = ask(sandboxes, marshal.dumps(wrong), [], launched, f"number {number}")
    if answer is None:
        return
    if "pid" in answer[0]:
        record = ended(sandboxes, spec, answer, launched)
        launched.outcomes["no record" if record is None else record["outcome"]["type"]] += 1
    elif "error" in answer[0]:
        launched.outcomes["refused"] += 1
    else:
        launched.defects.append(f"number {number}: {answer[0]}")


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a spec that holds something."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from places(inner)


def ask(
    sandboxes: Sandboxes, data: bytes | None, fds: list[int], launched: Launched, what: str
) -> tuple[dict[str, Any], list[int]] | None:
    """Send it as a memfd, or with these descriptors; None if no answer came, which is a defect."""
    assert sandboxes.socket is not None
    if data is not None:
        fds = [os.memfd_create("fuzz"), *fds]
        os.write(fds[0], data)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        sandboxes.socket.sendmsg([b"request"], rights)
        if not select.select([sandboxes.socket], [], [], ANSWER_SECONDS * PATIENCE)[0]:
            launched.defects.append(f"{what}: no answer")
            return None
        answer, got, _, _ = socket.recv_fds(sandboxes.socket, 1 << 16, 2)
    except OSError as error:
        launched.defects.append(f"{what}: {error}")
        return None
    finally:
        for fd in fds:
            os.close(fd)
    if not answer:
        launched.defects.append(f"{what}: the launcher has ended")
        return None
    return marshal.loads(answer), got


def ended(
    sandboxes: Sandboxes, spec: dict[str, Any], answer: tuple[dict[str, Any], list[int]], launched: Launched
) -> dict[str, Any] | None:
    """Wait for the init's end; its record if there is one. What it held is gone then, or can be removed."""
    attempt = Attempt(Path(spec["attempt_dir"]), answer[0]["pid"], *answer[1])
    try:
        if not select.select([attempt.pidfd], [], [], ANSWER_SECONDS * PATIENCE)[0]:
            launched.defects.append(f"an init hangs over {spec}")
            sandboxes.hierarchy.kill(spec["attempt"])
            attempt.signal(9)
            return None
        with suppress(FileNotFoundError):
            return attempt.record()
        return None
    finally:
        attempt.close()
        sandboxes.hierarchy.remove(spec["attempt"])
