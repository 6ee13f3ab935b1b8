"""``rnx volume``: storage that outlives the jobs that use it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from rnx.options import Format, FormatOption, JsonOption, chosen
from rnx.target import Target, connected

if TYPE_CHECKING:
    from rnx.daemon import Daemon

FILENAME = "rnx-volume.json"
READY_WITHIN_SECONDS = 60.0
PAUSE_SECONDS = 0.1

Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Volumes by name.")]


@connected
def create(
    target: Target,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The volume's name.")],
    size: Annotated[str, typer.Option(metavar="SIZE", help="How much it holds: 512Mi, 10G.")],
    kind: Annotated[
        str, typer.Option("--type", metavar="filesystem|memory", help="On disk, or in memory until the host restarts.")
    ] = "filesystem",
) -> None:
    """Make a volume, empty, and wait until it is there.

    Any job whose spec.volumes names it may use it. To make it larger, apply a manifest of it with another size.

    \b
    Example:
      rnx volume create data --size=10Gi
      rnx volume create scratch --size=256Mi --type=memory
      rnx run --volume data:/data ls -la /data
    """
    import json

    from rnx.failures import Conflict, InvalidRequest, NotFound

    daemon = target.daemon()
    manifest = {
        "apiVersion": "joblet/v1",
        "kind": "Volume",
        "metadata": {"name": name},
        "spec": {"size": int(size) if size.isdecimal() else size, "type": kind},
    }
    try:
        daemon.resource("Volume", name)
        raise Conflict(f"there is a volume {name} already", todo="rnx apply -f FILE changes it")
    except NotFound:
        pass  # as it should be
    try:
        daemon.apply(json.dumps(manifest).encode(), filename=FILENAME)
    except InvalidRequest as error:
        raise InvalidRequest(name_flags(error.what), todo="rnx volume create --help shows examples") from error
    wait_until_ready(daemon, name)
    print(f"volume/{name} created")


@connected
def list_volumes(target: Target, output: FormatOption = Format.TABLE, json: JsonOption = False) -> None:
    """List volumes: how much they hold, what is used of that, and by which jobs.

    \b
    Example:
      rnx volume list
      rnx volume list -o json
    """
    from rnx.resources import show_resources

    show_resources(target.daemon().list_resources("Volume"), chosen(output, json), alone=False)


@connected
def remove(target: Target, names: Names) -> int:
    """Remove volumes with all that is in them. One that a run uses is not removed.

    \b
    Example:
      rnx volume remove scratch
    """
    from rnx import exit_codes
    from rnx.failures import ClientError
    from rnx.main import report

    daemon, code = target.daemon(), exit_codes.OK
    for name in names:
        try:
            daemon.delete_resource("Volume", name)
            print(f"volume/{name} deleted", flush=True)
        except ClientError as error:
            code = code or report(error)
    return code


def wait_until_ready(daemon: Daemon, name: str) -> None:
    """Raises ClientError with the reason if it can't be had, or not soon."""
    from rnx.failures import ClientError

    todo = f"it is tried again; rnx volume list shows how it stands, rnx volume remove {name} gives up"
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    while time.monotonic() < deadline:
        ready = next((one for one in daemon.resource("Volume", name).conditions if one.type == "Ready"), None)
        if ready is not None and ready.status == "True":
            return
        if ready is not None:
            raise ClientError(f"volume {name} is not ready: {ready.message}", todo=todo)
        time.sleep(PAUSE_SECONDS)
    raise ClientError(f"volume {name} is not ready after {READY_WITHIN_SECONDS:g} s", todo=todo)


def name_flags(text: str) -> str:
    """An error about the manifest that was composed here, told in terms of what was typed."""
    lines = []
    for line in text.splitlines():
        path, colon, rest = line.removeprefix(f"{FILENAME}:1:").partition(": ")[2].partition(": ")
        flag = {"metadata.name": "NAME", "spec.size": "--size", "spec.type": "--type"}.get(path)
        lines.append(f"{flag}: {rest}" if flag and colon else line)
    return "\n".join(lines)
