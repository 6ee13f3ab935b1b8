"""``rnx validate``: manifests are checked here, without a daemon."""

from __future__ import annotations

from rnx.options import FilesOption, RecursiveOption


def validate(filename: FilesOption, recursive: RecursiveOption = False) -> None:
    """Check manifests, without a daemon.

    Every fault of every file is shown as file:line:column: field: what is wrong and what is allowed. Exit code 0: all are
    valid, 2: there are faults.

    \b
    Example:
      rnx validate -f job.yml
      rnx validate -f jobs/ -R
    """
    from rnx.manifest_files import read_files

    for file in read_files(filename, recursive=recursive):
        count = len(file.manifests)
        print(f"{file.name}: valid ({count} {'manifest' if count == 1 else 'manifests'})")
