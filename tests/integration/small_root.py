"""A root file system as small as one can be: a shell and a few programs of this host with the libraries that they load."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from pathlib import Path

PROGRAMS = ("sh", "cat", "id", "ls", "touch", "stat", "mkdir", "rm", "df")


def make_root(root: Path, more: tuple[str, ...] = ()) -> None:
    """Fill an empty or new directory. Its /etc/release says that it is this one. more: programs beside the usual ones."""
    for name in ("bin", "etc", "tmp", "var"):
        (root / name).mkdir(parents=True)
    (root / "etc/release").write_text("small root\n")
    (root / "etc/passwd").write_text("admin:x:0:0:admin:/:/bin/sh\n")
    programs: list[str] = []
    for name in (*PROGRAMS, *more):
        found = shutil.which(name, path="/usr/bin:/bin")
        assert found is not None, name
        shutil.copy(found, root / "bin" / name)
        programs.append(found)
    loaded = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    for library in set(re.findall(r"(/\S+) \(0x", loaded)):
        target = root / library.removeprefix("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)


def pack(root: Path, archive: Path) -> None:
    """As an archive whose names begin with ``./``, as export commands write them."""
    with tarfile.open(archive, "w:gz") as made:
        made.add(root, ".")
