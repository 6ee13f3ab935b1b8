"""What a repository may hold and say: names of files and refs, contents, authors and subjects; and our note of what is in force.

The first byte of an input says which of them the rest is.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from joblet.manifest.errors import ManifestError
from jobletd.sources.git.applied import Applied, load_applied
from jobletd.sources.git.command import printable
from jobletd.sources.git.repository import SHORT, entry_of, refs_of
from jobletd.sources.git.tree import counts, parsed, refusal
from jobletd.sources.git.versions import highest
from tests.faults.fuzz.reader import Reader

JOB = b"apiVersion: joblet/v1\nkind: Job\nmetadata: {name: a}\nspec: {command: [x]}\n"
ID = b"0123456789012345678901234567890123456789"
APPLIED = json.dumps(asdict(Applied(ID.decode(), "main", ".", "Ann <a@example.org>", "A change", 3))).encode()


def make(directory: Path) -> Reader:
    note = directory / "applied.json"

    def applied(data: bytes) -> bool:
        note.write_bytes(data)
        found = load_applied(str(note))
        if found is None:
            return False
        shown = (
            f"{found.revision[:SHORT]} {found.label} {found.path} {found.author} {found.subject} {found.manifests + 1}"
        )
        return bool(shown.encode())

    readers = {ord("r"): refs, ord("n"): names, ord("b"): blob, ord("f"): facts, ord("a"): applied}

    def read(data: bytes) -> bool:
        return readers[data[0]](data[1:]) if data and data[0] in readers else False

    samples = [
        b"rref: refs/heads/main\tHEAD\n" + ID + b"\tHEAD\n" + ID + b"\trefs/tags/v1.2.3\n",
        "ndirectory/räport.yml".encode(),
        b"n\xff.yml",
        b"b" + JOB,
        b"bversion https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n",
        "fÄnn <a@example.org>: A change".encode(),
        b"a" + APPLIED,
    ]
    return Reader(
        read=read,
        samples=samples,
        tokens=[b"refs/tags/", b"v1.0.0", b"-rc.1", b"ref: ", b"\t", b'"manifests"', b"null"],
    )


def refs(data: bytes) -> bool:
    found, symbolic = refs_of(data)
    tags = [ref.removeprefix("refs/tags/") for ref in found if ref.startswith("refs/tags/")]
    assert highest(tags, ">=0.0.1") in (None, *tags)
    return bool(symbolic)


def names(data: bytes) -> bool:
    """A path comes after a tab, and up to a NUL."""
    entry = entry_of(b"100644 blob " + ID + b"      12\t" + data.replace(b"\0", b""))
    error = refusal(entry, "jobs/") if counts(entry) else None
    entry.path.encode()  # it is stored, logged and sent
    assert error is None or isinstance(error, ManifestError)
    return error is None


def blob(data: bytes) -> bool:
    manifests, errors = parsed(["a.yml", "b.yml"], [data, JOB])
    for error in errors:
        str(error).encode()
    return bool(manifests.get("a.yml"))


def facts(data: bytes) -> bool:
    shown = printable(data.decode(errors="replace"))
    assert "\n" not in shown and "\x1b" not in shown
    return bool(shown.encode())
