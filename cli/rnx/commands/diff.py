"""``rnx diff``: what an apply would change, line by line, and what it would restart."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from joblet.errors import JobletError
from rnx import exit_codes
from rnx.options import FilesOption, RecursiveOption
from rnx.target import Target, connected

if TYPE_CHECKING:
    from joblet.api.v1 import job_pb2

_STYLES = {"+": "green", "-": "red", "@": "cyan", "#": "yellow"}


@connected
def diff(target: Target, filename: FilesOption, recursive: RecursiveOption = False) -> int:
    """Show what an apply would change, and what that restarts.

    Both sides are shown in canonical form: without comments, in one order, without what only repeats a default. Exit
    code 0: no differences, 1: differences, 2: an error.

    \b
    Example:
      rnx diff -f job.yml
    """
    from rnx.main import report
    from rnx.manifest_files import read_files
    from rnx.output.terminal import printable, styled
    from rnx.uploads import local_files, of_manifests

    differs = False
    try:
        daemon = None
        for file in read_files(filename, recursive=recursive):
            daemon = daemon or target.daemon()
            for result in daemon.apply(
                file.data, filename=file.name, dry_run=True, files=local_files(of_manifests(file))
            ):
                for text in differences(result, file.name):
                    differs = True
                    print(styled(printable(text), _STYLES.get(text[:1], "")))
    except JobletError as error:
        report(error)
        return exit_codes.INVALID  # as diff(1): 2 is trouble, of whatever kind
    return exit_codes.FAILURE if differs else exit_codes.OK


def differences(result: job_pb2.ApplyResult, filename: str) -> Iterator[str]:
    """A unified diff headed by its consequence; nothing if there is no difference."""
    before, after = result.current_manifest.splitlines(), result.desired_manifest.splitlines()
    what = f"{result.kind.lower() or 'job'}/{result.name}"
    lines = list(difflib.unified_diff(before, after, what, filename, lineterm=""))
    if lines:
        yield f"# {what}: {result.consequence or result.action}"
        yield from lines
