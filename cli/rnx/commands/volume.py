"""``rnx volume``: storage that outlives the jobs that use it."""

from __future__ import annotations

from typing import Annotated

import typer

from rnx.options import ExecutorOption, Format, FormatOption, JsonOption, chosen
from rnx.target import Target, connected

FLAGS = {"spec.size": "--size", "spec.type": "--type", "spec.executor": "--executor"}
READY_WITHIN_SECONDS = 60.0

Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="Volumes by name.")]


@connected
def create(
    target: Target,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The volume's name.")],
    size: Annotated[str, typer.Option(metavar="SIZE", help="How much it holds: 512Mi, 10G.")],
    kind: Annotated[
        str, typer.Option("--type", metavar="filesystem|memory", help="On disk, or in memory until the host restarts.")
    ] = "filesystem",
    executor: ExecutorOption = None,
) -> None:
    """Make a volume, empty, and wait until it is there.

    Any job whose spec.volumes names it may use it. To make it larger, apply a manifest of it with another size.

    \b
    Example:
      rnx volume create data --size=10Gi
      rnx volume create scratch --size=256Mi --type=memory
      rnx volume create shared --size=50Gi --executor=slurm
      rnx run --volume data:/data ls -la /data
    """
    from rnx.keeping import make, refuse_what_is_there

    daemon = target.daemon()
    refuse_what_is_there(daemon, "Volume", name, todo="rnx apply -f FILE changes it")
    spec = {"size": int(size) if size.isdecimal() else size, "type": kind}
    if executor is not None:
        spec["executor"] = executor
    make(daemon, "Volume", name, spec, flags=FLAGS, within_seconds=READY_WITHIN_SECONDS)


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
    from rnx.keeping import remove_all

    return remove_all(target.daemon(), "Volume", names)
