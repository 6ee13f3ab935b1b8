"""Launch latency of ``/bin/true``: from the request to its recorded exit, everything on, beside bubblewrap and runc."""

from __future__ import annotations

from tests.bench.peers import Runc, bubblewrap, fork_exec, unshare
from tests.bench.rounds import alternate, print_ratios
from tests.bench.sandbox import Sandbox

ROUNDS = 60
TRUE = ["/bin/true"]


def main() -> None:
    with Sandbox() as sandbox, Runc() as runc:

        def ours() -> None:
            sandbox.run(TRUE)

        peers = {
            "joblet": ours,
            "bubblewrap": lambda: bubblewrap(TRUE),
            "runc": lambda: runc.run(TRUE),
            "unshare": lambda: unshare(TRUE),
            "fork+exec": lambda: fork_exec(TRUE),
        }
        print_ratios("joblet", alternate(peers, rounds=ROUNDS))
    print("budget: ratio to bubblewrap at most 0.8, to runc at most 0.2")
