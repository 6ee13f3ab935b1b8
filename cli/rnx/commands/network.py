"""``rnx network``: networks whose jobs see each other by name."""

from __future__ import annotations

from typing import Annotated

import typer

from rnx.options import Format, FormatOption, JsonOption, chosen
from rnx.target import Target, connected

FLAGS = {"spec.cidr": "--cidr"}
READY_WITHIN_SECONDS = 30.0

Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Networks by name.")]


@connected
def create(
    target: Target,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The network's name.")],
    cidr: Annotated[str, typer.Option(metavar="ADDRESSES", help="Its addresses: 10.20.0.0/24.")],
    internal: Annotated[bool, typer.Option("--internal", help="There is no way out of it.")] = False,
) -> None:
    """Make a network, and wait until it is there.

    Jobs whose spec.isolation.network names it see each other by name. bridge and isolated are there without being made.

    \b
    Example:
      rnx network create backend --cidr=10.20.0.0/24
      rnx run --network backend --name db postgres
      rnx network create closed --cidr=10.20.1.0/24 --internal
    """
    from rnx.keeping import make, refuse_what_is_there

    daemon = target.daemon()
    refuse_what_is_there(daemon, "Network", name, todo=f"rnx network remove {name} removes it")
    spec: dict[str, object] = {"cidr": cidr, **({"internal": True} if internal else {})}
    make(daemon, "Network", name, spec, flags=FLAGS, within_seconds=READY_WITHIN_SECONDS)


@connected
def list_networks(target: Target, output: FormatOption = Format.TABLE, json: JsonOption = False) -> None:
    """List declared networks: their addresses, how many jobs are on them, and which.

    \b
    Example:
      rnx network list
      rnx network list -o json
    """
    from rnx.resources import show_resources

    show_resources(target.daemon().list_resources("Network"), chosen(output, json), alone=False)


@connected
def remove(target: Target, names: Names) -> int:
    """Remove networks. One that a run uses is not removed.

    \b
    Example:
      rnx network remove backend
    """
    from rnx.keeping import remove_all

    return remove_all(target.daemon(), "Network", names)
