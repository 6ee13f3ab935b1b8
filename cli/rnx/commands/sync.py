"""``rnx sync``: a followed repository is looked at now instead of after its interval."""

from __future__ import annotations

from typing import Annotated

import typer

from rnx import exit_codes
from rnx.target import Target, connected_to_many

ANSWER_SECONDS = 600.0  # a look at a large repository may take that


@connected_to_many
def sync(
    target: Target,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The GitSource's name.")],
    allow_delete: Annotated[
        bool, typer.Option("--allow-delete", help="Let it remove more than prune.maxDelete says, this time.")
    ] = False,
    take_over: Annotated[
        bool,
        typer.Option("--take-over", help="Let it take what belongs to another source; nothing restarts because of it."),
    ] = False,
) -> int:
    """Look at a GitSource's repository now, and wait until that is over.

    The exit code is 1 if it is not in line afterwards; what is wrong is told.

    \b
    Example:
      rnx sync fleet
      rnx sync fleet --allow-delete
      rnx sync fleet --take-over
      rnx sync fleet --all-nodes
    """
    from rnx.failures import ClientError

    short = name.removeprefix("gitsource/")
    if target.is_many:
        from rnx.merged import sync_on

        return sync_on(
            target.several(answer_seconds=ANSWER_SECONDS), short, allow_delete=allow_delete, take_over=take_over
        )
    daemon = target.daemon(answer_seconds=ANSWER_SECONDS)
    answer = daemon.sync_source(short, allow_delete=allow_delete, take_over=take_over)
    if not answer.in_line:
        raise ClientError(f"{answer.reason}: {answer.message}", where=f"gitsource/{short}")
    print(f"gitsource/{short} {answer.revision}: {answer.manifests} manifests in force")
    return exit_codes.OK
