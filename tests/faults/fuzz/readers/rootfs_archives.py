"""Archives of root file systems: whatever is in one, nothing is written outside of its directory."""

from __future__ import annotations

import io
import os
import resource
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

from joblet.sandbox.rootfs_archive import MEMORY_BYTES, RootfsError, unpack
from tests.faults.fuzz.reader import Reader

MOST_BYTES = 16 << 20


def make(directory: Path) -> Reader:
    # The process that unpacks has this bound; here it also has what the fuzzer itself needs.
    resource.setrlimit(resource.RLIMIT_AS, (2 * MEMORY_BYTES, 2 * MEMORY_BYTES))
    place = directory / "place"

    def read(data: bytes) -> bool:
        target = place / "root"
        target.mkdir(parents=True)
        try:
            unpack(io.BytesIO(data), "some.tar", str(target), max_bytes=MOST_BYTES)
        except RootfsError as error:
            str(error).encode(errors="surrogateescape")
            return False
        finally:
            assert os.listdir(place) == ["root"] and os.listdir(directory) == ["place"]
            for path in target.rglob("*"):
                assert path.is_symlink() or not path.stat().st_mode & 0o6000, f"{path} has a set-user-id bit"
            shutil.rmtree(place)
        return True

    place.mkdir()
    place.rmdir()
    tokens = [
        b"../",
        b"/etc/passwd",
        b"ustar\x0000",
        b"ustar  \0",
        b"GNU.sparse.major=1\n",
        b"path=../../x\n",
        b"\0" * 512,
    ]
    return Reader(read=read, samples=list(samples()), tokens=tokens, grows_bytes=MEMORY_BYTES)


def samples() -> Iterator[bytes]:
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        yield archive("", form)
    for compression in ("gz", "bz2", "xz"):
        yield archive(compression, tarfile.GNU_FORMAT)


def archive(compression: str, form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}", format=form) as tar:  # type: ignore[call-overload]
        for name, kind, link in (
            ("bin", tarfile.DIRTYPE, ""),
            ("bin/sh", tarfile.REGTYPE, ""),
            ("bin/bash", tarfile.SYMTYPE, "sh"),
            ("bin/dash", tarfile.LNKTYPE, "bin/sh"),
            ("etc/" + "long/" * 30 + "name", tarfile.REGTYPE, ""),
            ("etc/link", tarfile.SYMTYPE, "../bin/sh"),
            ("dev/null", tarfile.CHRTYPE, ""),
        ):
            if form == tarfile.USTAR_FORMAT and len(name) > 100:
                continue
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.mode = kind, link, 0o4755
            if kind == tarfile.REGTYPE:
                member.size = 700
            tar.addfile(member, io.BytesIO(bytes(700)))
    return buffer.getvalue()
