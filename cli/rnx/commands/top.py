"""``rnx top``: a live screen of a node's jobs."""

from __future__ import annotations

from typing import Annotated

import typer

from rnx.target import Target, connected


@connected
def top(
    target: Target,
    interval: Annotated[
        str, typer.Option("--interval", metavar="DURATION", help="Between two readings: 500ms to 1h.")
    ] = "2s",
) -> None:
    """Follow a node's jobs on the whole terminal: what they use, against their limits.

    Keys: c m i a n sort by CPU, memory, I/O, age, name; u shows only what runs; / filters; l follows the log of
    the chosen job; s stops it, r runs it again (with an admin's certificate); q ends it.

    \b
    Example:
      rnx top --interval 1s
    """
    import sys

    from joblet.pki import Role
    from rnx.commands.nodes import role
    from rnx.failures import InvalidRequest
    from rnx.moments import seconds_of

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InvalidRequest("rnx top needs a terminal", todo="for scripts there is rnx monitor watch --json")
    interval_ms = round(seconds_of("--interval", interval) * 1000)
    daemon = target.daemon()
    daemon.node_info()  # a daemon that does not answer is told in plain words, before the screen is taken

    from rnx.top.app import TopApp

    may_change = role(daemon.node) in (None, str(Role.ADMIN))  # without a certificate it is the Unix socket, so root
    TopApp(daemon, interval_ms=interval_ms, may_change=may_change).run()
