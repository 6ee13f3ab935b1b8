"""The spool directory's file names, to what is shown of a file that is refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from joblet.clock import SystemClock
from jobletd.sources.error_files import ErrorFiles
from jobletd.sources.spool_files import Loaded, Refused, SpoolDirectory
from tests.faults.fuzz.reader import Reader

JOB = "apiVersion: joblet/v1\nkind: Job\nmetadata: {name: a}\nspec: {command: [x]}\n"
SAMPLES = (
    b"report.yml",
    b".hidden.yml",
    b"report.yml~",
    b"a.json",
    b"x" * 251 + b".yml",
    "ä ö.yaml".encode(),
    b"\xff\xfe.yml",
)


def make(directory: Path) -> Reader:
    spool, status = directory / "spool", directory / "status"

    def read(data: bytes) -> bool:
        """Several names, by lines; every second file is none that can be used."""
        spool.mkdir(0o755)
        try:
            for number, line in enumerate(data.split(b"\n")[:20]):
                write(
                    os.fsencode(spool) + b"/",
                    line.replace(b"/", b"").replace(b"\0", b"")[:255],
                    JOB if number % 2 else "",
                )
            with SpoolDirectory(str(spool), owner=os.getuid()) as place:
                found = place.scan()
                contents = {name: place.read(name)[1] for name in found}
            faults = {name: (one.reason, one.errors) for name, one in contents.items() if isinstance(one, Refused)}
            ErrorFiles(str(status), clock=SystemClock()).update(faults)
            for path in status.glob("*"):
                path.read_text()
            for name in found:
                name.encode()  # it is stored, logged and sent
            return any(isinstance(one, Loaded) for one in contents.values())
        finally:
            shutil.rmtree(spool)
            shutil.rmtree(status, ignore_errors=True)

    tokens = [
        b".yml",
        b".yaml",
        b".json",
        b"~",
        b"#",
        b".",
        b"..",
        b".swp.yml",
        b"4913.yml",
        b"\n",
        b".error.yml",
        b"\x1b[31m",
    ]
    return Reader(read=read, samples=[b"x.yml\n" + name for name in SAMPLES], tokens=tokens)


def write(directory: bytes, name: bytes, text: str) -> None:
    if name in (b"", b".", b".."):
        return
    with open(os.open(directory + name, os.O_WRONLY | os.O_CREAT, 0o644), "w") as file:
        file.write(text)
