"""Launch latency, from the request to the recorded exit, beside whoever else makes sandboxes, and the kernel's floor.

What this machine's cgroups or its lack of systemd forbid runs side by side with us in a guest that systemd booted with cgroup v2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from tests.bench import guest
from tests.bench.peers import Floor, Podman, Runc, bubblewrap, fork_exec, systemd_run, unshare
from tests.bench.report import (
    BenchResult,
    Budget,
    NotRun,
    at_most,
    print_ratios,
    timing_bars,
    timing_table,
)
from tests.bench.rounds import Call, Timing, able, alternate
from tests.bench.sandbox import Sandbox

ROUNDS = 60
PAUSE_SECONDS = 0.02  # so that nobody is measured beside what the one before it left to be done
WITHIN_SECONDS = 35.0
GUEST_ROUNDS = 15
GUEST_WITHIN_SECONDS = 20.0
# The interpreter of the distribution, which is below /usr and so in every sandbox.
PROGRAMS = {
    "true": ["/bin/true"],
    "python": ["/usr/bin/python3", "-I", "-S", "-c", 'b"\\1" * 50_000_000'],
}
TITLES = {"true": "`/bin/true`", "python": "A Python program of 50 MB"}
ABOUT = (
    "From the request to the recorded exit, everything on: all namespaces, user ids, seccomp, limits of memory, CPU and "
    "processes, the log, the exit record. The peers get the same namespaces and binds, as far as they have them; bubblewrap and "
    "unshare have no limits, and only podman and systemd-run keep anything of how it ended. The Python program is Debian's "
    "interpreter without site packages, which fills 50 MB and ends. The floor is C with nothing on top of the kernel: fork and "
    "exec; clone3 with all namespaces; and that with a new root of the same binds. Launches come one at a time, 20 ms apart, "
    "so our launcher has a spare ready, as it has on a host that is not flooded."
)
SIDE_BY_SIDE = "systemd-run", "crun"  # which need systemd, and cgroup v2 alone


def run() -> BenchResult:
    timings: dict[str, dict[str, Timing]] = {}
    with here() as (peers, refused):
        for name, command in PROGRAMS.items():
            print(f"-- {name}")
            calls = {peer: _bound(call, command) for peer, call in peers.items()}
            timings[name] = alternate(calls, rounds=ROUNDS, pause_seconds=PAUSE_SECONDS, within_seconds=WITHIN_SECONDS)
            print_ratios("joblet", timings[name])
    not_run = [NotRun(peer, why) for peer, why in refused.items()]
    found = guest.run(__name__, timeout_seconds=120)
    if isinstance(found, NotRun):
        not_run.append(found)
    else:
        not_run += [NotRun(f"{peer}, in the guest", why) for peer, why in found.refused.items()]
    inside = {} if isinstance(found, NotRun) else found.timings
    if inside:
        print("-- true, in the guest")
        print_ratios("joblet", inside)
    return _result(timings, inside, not_run)


def _bound(call: guest.Peer, command: list[str]) -> Call:
    return lambda: call(command)


@contextmanager
def here() -> Iterator[tuple[dict[str, guest.Peer], dict[str, str]]]:
    """The peers that can be run on this machine, and what the others said."""
    with ExitStack() as stack:
        enter = stack.enter_context
        floor = enter(Floor())
        peers: dict[str, guest.Peer] = {
            "joblet": enter(Sandbox()).run,
            "bubblewrap": bubblewrap,
            "runc": enter(Runc()).run,
            "crun": enter(Runc("crun")).run,
            "podman": enter(Podman()).run,
            "unshare": unshare,
            "fork+exec, by Python": fork_exec,
            "floor: fork+exec": lambda command: floor.run("fork", command),
            "floor: namespaces": lambda command: floor.run("namespaces", command),
            "floor: sandbox": lambda command: floor.run("sandbox", command),
        }
        good, refused = able({peer: _bound(call, PROGRAMS["true"]) for peer, call in peers.items()})
        yield {peer: peers[peer] for peer in good}, refused


def in_guest() -> guest.Found:
    """What runs in there."""
    with ExitStack() as stack:
        enter = stack.enter_context
        peers: dict[str, guest.Peer] = {
            "joblet": enter(Sandbox()).run,
            "bubblewrap": bubblewrap,
            "runc": enter(Runc()).run,
            "crun": enter(Runc("crun")).run,
            "systemd-run": systemd_run,
        }
        good, refused = able({peer: _bound(call, PROGRAMS["true"]) for peer, call in peers.items()})
        return guest.Found(
            alternate(good, rounds=GUEST_ROUNDS, warm_up=0, within_seconds=GUEST_WITHIN_SECONDS), refused
        )


def _result(
    timings: Mapping[str, Mapping[str, Timing]], inside: Mapping[str, Timing], not_run: list[NotRun]
) -> BenchResult:
    tables = [timing_table(TITLES[name], "joblet", found) for name, found in timings.items()]
    plots = [timing_bars(f"launch-{name}", TITLES[name].strip("`"), "joblet", found) for name, found in timings.items()]
    if inside:
        tables.append(timing_table("`/bin/true` in the guest: only the ratios mean anything", "joblet", inside))
    ours = timings["true"]["joblet"].median
    summary = [
        f"`{name}`: ratio to {peer}: {found['joblet'].median / found[peer].median:.2f}"
        for name, found in timings.items()
        for peer in ("bubblewrap", "runc", "podman", "floor: sandbox")
        if peer in found
    ]
    summary += [
        f"`true`, in the guest: ratio to {peer}: {inside['joblet'].median / inside[peer].median:.2f}"
        for peer in SIDE_BY_SIDE
        if peer in inside
    ]
    budgets: list[Budget] = [
        at_most(f"launch of `/bin/true` beside {peer}", limit, ours / timings["true"][peer].median, f"of {peer}'s time")
        for peer, limit in (("bubblewrap", 0.8), ("runc", 0.2))
        if peer in timings["true"]
    ]
    return BenchResult(
        name="launch",
        title="Launching",
        about=ABOUT,
        summary=tuple(summary),
        tables=tuple(tables),
        plots=tuple(plots),
        budgets=tuple(budgets),
        not_run=tuple(not_run),
    )
