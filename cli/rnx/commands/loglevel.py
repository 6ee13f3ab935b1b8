"""``rnx loglevel``: how much the daemon logs, while it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from rnx.target import Target, connected


@connected
def loglevel(
    target: Target,
    level: Annotated[
        str | None,
        typer.Argument(metavar="[LEVEL]", help="debug, info, warning or error; config: as the configuration says."),
    ] = None,
    for_: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="Go back to the configured level after this long: 10m.")
    ] = None,
) -> None:
    """Show the level of the daemon's log, or change it until further notice.

    A reload of the configuration and a restart bring the configured one back.

    \b
    Example:
      rnx loglevel debug --for 10m
      rnx loglevel config
    """
    from rnx.failures import InvalidRequest
    from rnx.moments import seconds_of
    from rnx.output.words import duration

    if for_ and level in (None, "config"):
        raise InvalidRequest("--for needs a level", todo="rnx loglevel debug --for 10m")
    seconds = seconds_of("--for", for_) if for_ else 0.0
    daemon = target.daemon()
    answer = daemon.log_level() if level is None else daemon.set_log_level("" if level == "config" else level, seconds)
    text = answer.level
    if answer.level != answer.configured:
        text += f" (configured: {answer.configured}"
        text += f", back in {duration(answer.seconds_left)})" if answer.seconds_left else ")"
    print(text)
