"""``rnx cordon``, ``uncordon`` and ``drain``: a host that launches nothing, and one on which nothing runs either."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rnx.target import Target, connected

if TYPE_CHECKING:
    from joblet.api.v1 import node_pb2

ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Shown beside every job that waits.")]


@connected
def cordon(target: Target, reason: ReasonOption = "") -> None:
    """Launch nothing on the node from now on.

    What runs goes on; what is applied waits. It holds over restarts of the daemon, until rnx uncordon.

    \b
    Example:
      rnx cordon --reason "new disk on Friday"
    """
    target.daemon().cordon(reason)
    print("cordoned")


@connected
def uncordon(target: Target) -> None:
    """Let the node launch again.

    \b
    Example:
      rnx uncordon
    """
    print("uncordoned" if target.daemon().uncordon() else "was not cordoned")


@connected
def drain(
    target: Target,
    timeout: Annotated[str | None, typer.Option(metavar="TIME", help="Give up waiting after this long: 30m.")] = None,
    stay: Annotated[bool, typer.Option("--stay", help="The daemon goes on, cordoned, instead of ending.")] = False,
    reason: ReasonOption = "",
) -> int | None:
    """Cordon the node, wait until nothing runs on it, and end its daemon.

    Jobs run to their end. Services (restart: Always) are stopped when only they are left, and go on after the next start
    and rnx uncordon. Ctrl-C and --timeout end the wait alone: the node stays cordoned, what runs goes on.

    Exit code 0: nothing runs any more; 124: not in time.

    \b
    Example:
      rnx drain --timeout 30m --reason upgrade
    """
    import sys
    import time

    from rnx import exit_codes
    from rnx.failures import Unreachable, WaitTimedOut
    from rnx.moments import seconds_of
    from rnx.output.terminal import progress

    seconds = None if timeout is None else seconds_of("--timeout", timeout)
    deadline = None if seconds is None else time.monotonic() + seconds
    last: node_pb2.DrainProgress | None = None
    try:
        with progress("draining") as tell:
            for last in target.daemon().drain(reason, stay=stay, seconds=seconds):
                tell(state_of(last))
                if last.done:  # the daemon may be gone before it can say that this was all
                    break
    except KeyboardInterrupt:
        print("\nrnx: the node stays cordoned; rnx uncordon lets it launch again", file=sys.stderr)
        return exit_codes.INTERRUPTED
    except Unreachable:
        if last is None or deadline is None or time.monotonic() < deadline:
            raise
        raise WaitTimedOut(
            f"after {timeout}: {state_of(last)}",
            todo="the node stays cordoned; rnx drain goes on waiting, rnx uncordon lets it launch again",
        ) from None
    waiting = f"; {last.queued} wait until the node launches again" if last is not None and last.queued else ""
    print(f"drained{waiting}; the daemon {'stays, cordoned' if stay else 'ends'}")
    return None


def state_of(found: node_pb2.DrainProgress) -> str:
    from rnx.output.terminal import printable

    names = ", ".join(found.jobs[:5]) + (" ..." if found.running > 5 else "")
    what = "being stopped" if found.stopping_services else "running"
    return printable(f"{found.running} {what}: {names}" if found.running else "nothing runs")
