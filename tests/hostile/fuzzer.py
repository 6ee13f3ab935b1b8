"""``make kernel-fuzz``: trinity, a fuzzer of system calls that others wrote, in a job, and nobody beside it is harmed.

By hand only, and in a machine that QEMU emulates: what it finds may be a fault of the kernel. Needs the Debian package trinity
and those of ``make machine-test``. It runs as a plain user and as root of its user namespace, each with half of the time. It does
without perf's descriptors and one socket of each kind to begin with: it would try for ever to get the first, and dies without
the second.
"""

from __future__ import annotations

import argparse
import re
import sys
import time

from tests.hostile.street import Street, street

USERS = {1000: "", 0: ", --dangerous"}
FUZZER = """
    apiVersion: joblet/v1
    kind: Job
    metadata: {{name: fuzzer}}
    spec:
      command: [trinity, {options}, --children, "{children}", -N, "{calls}", -s, "{seed}"{more}]
      limits: {{cpu: 200%, memory: 512Mi, pids: 256, disk: 256Mi, logs: 16Mi}}
      isolation: {{user: {user}}}
      timeout: {seconds}s
      stop: {{grace: 0s}}
"""
OPTIONS = '--arch, "64", --logging, "off", --disable-fds=perf, --disable-fds=sockets'
CHILDREN = 4
CALLS = 20_000
ROUND_SECONDS = 60
DONE = re.compile(rb"Ran (\d+) syscalls")


def fuzz(beside: Street, user: int, seed: int) -> str:
    """One round, and what it came to. Raises AssertionError for whatever it did to others."""
    state = beside.state()
    beside.host.apply(
        FUZZER.format(
            user=user,
            more=USERS[user],
            seed=seed,
            options=OPTIONS,
            calls=CALLS,
            children=CHILDREN,
            seconds=ROUND_SECONDS,
        )
    )
    run = beside.host.finished("fuzzer", within=2 * ROUND_SECONDS)
    output = beside.host.log("fuzzer", stream="")
    assert beside.secret.encode() not in output
    beside.victim_is_well()
    beside.is_as_before(state, without="fuzzer")
    usage = run.attempts[-1].usage
    calls = max((int(number) for number in DONE.findall(output)), default=0)
    return f"user {user}, seed {seed}: {run.reason}, {calls} calls, {usage.cpu_seconds:.1f} s of CPU"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.fuzzer", description=__doc__)
    parser.add_argument("--minutes", type=float, default=4.0, help="in all (default: 4)")
    parser.add_argument("--seed", type=int, default=1, help="of the first round (default: 1)")
    chosen = parser.parse_args()
    seed = chosen.seed
    with street() as beside:
        for user in USERS:
            deadline = time.monotonic() + chosen.minutes * 30
            while time.monotonic() < deadline:
                print(fuzz(beside, user, seed), flush=True)
                seed += 1
    print(f"{seed - chosen.seed} rounds, and nobody beside them was harmed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
