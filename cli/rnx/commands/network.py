"""``rnx network``: networks whose jobs see each other by name."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from rnx.options import Format, FormatOption, JsonOption, chosen
from rnx.target import Target, connected

if TYPE_CHECKING:
    from rnx.daemon import Daemon

FILENAME = "rnx-network.json"
READY_WITHIN_SECONDS = 30.0
PAUSE_SECONDS = 0.1

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
    import json

    from rnx.failures import Conflict, InvalidRequest, NotFound

    daemon = target.daemon()
    spec: dict[str, object] = {"cidr": cidr, **({"internal": True} if internal else {})}
    manifest = {"apiVersion": "joblet/v1", "kind": "Network", "metadata": {"name": name}, "spec": spec}
    try:
        daemon.resource("Network", name)
        raise Conflict(f"there is a network {name} already", todo=f"rnx network remove {name} removes it")
    except NotFound:
        pass  # as it should be
    try:
        daemon.apply(json.dumps(manifest).encode(), filename=FILENAME)
    except InvalidRequest as error:
        raise InvalidRequest(name_flags(error.what), todo="rnx network create --help shows examples") from error
    wait_until_ready(daemon, name)
    print(f"network/{name} created")


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
    from rnx import exit_codes
    from rnx.failures import ClientError
    from rnx.main import report

    daemon, code = target.daemon(), exit_codes.OK
    for name in names:
        try:
            daemon.delete_resource("Network", name)
            print(f"network/{name} deleted", flush=True)
        except ClientError as error:
            code = code or report(error)
    return code


def wait_until_ready(daemon: Daemon, name: str) -> None:
    """Raises ClientError with the reason if it can't be had, or not soon."""
    from rnx.failures import ClientError

    todo = f"it is tried again; rnx network list shows how it stands, rnx network remove {name} gives up"
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    while time.monotonic() < deadline:
        ready = next((one for one in daemon.resource("Network", name).conditions if one.type == "Ready"), None)
        if ready is not None and ready.status == "True":
            return
        if ready is not None:
            raise ClientError(f"network {name} is not ready: {ready.message}", todo=todo)
        time.sleep(PAUSE_SECONDS)
    raise ClientError(f"network {name} is not ready after {READY_WITHIN_SECONDS:g} s", todo=todo)


def name_flags(text: str) -> str:
    """An error about the manifest that was composed here, told in terms of what was typed."""
    lines = []
    for line in text.splitlines():
        path, colon, rest = line.removeprefix(f"{FILENAME}:1:").partition(": ")[2].partition(": ")
        flag = {"metadata.name": "NAME", "spec.cidr": "--cidr"}.get(path)
        lines.append(f"{flag}: {rest}" if flag and colon else line)
    return "\n".join(lines)
