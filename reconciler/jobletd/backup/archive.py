"""The file of a backup: a tar, compressed, of plain files; the last two members say what has to be in it.

``manifest.json`` has the size and SHA-256 of each file, ``manifest.sha256`` that of the manifest. Both come last, so that a file
that was cut off has neither. Reading is all or nothing.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

from joblet.atomicfile import sync_directory
from jobletd.backup.errors import ArchiveDamaged, BackupError

FORMAT = 1
MANIFEST, SEAL = "manifest.json", "manifest.sha256"
MANIFEST_BYTES = 64 << 20
CHUNK_BYTES = 1 << 20
_NAME = re.compile(r"(?:[A-Za-z0-9_@%+=:,~-][A-Za-z0-9_.@%+=:,~ -]*/)*[A-Za-z0-9_@%+=:,~-][A-Za-z0-9_.@%+=:,~ -]*")


@dataclass(frozen=True, slots=True)
class Member:
    """A file to go into the archive. name: in it, with slashes."""

    name: str
    path: str
    mode: int = 0o600


@dataclass(frozen=True, slots=True)
class Contents:
    """What an archive holds. facts: what was told of its origin. modes: of each file, by its name."""

    facts: Mapping[str, Any]
    modes: Mapping[str, int]


def write_archive(target: str, members: Iterable[Member], facts: Mapping[str, Any]) -> int:
    """Write it whole or not at all, durable when this returns. Returns its size in bytes. Raises BackupError, OSError."""
    directory, name = os.path.split(os.path.abspath(target))
    temporary = f"{directory}/.{name}.{os.getpid()}.tmp"
    try:
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb") as file:
            with tarfile.open(fileobj=file, mode="w:gz", compresslevel=4, format=tarfile.PAX_FORMAT) as tar:
                _fill(tar, members, facts)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        os.rename(temporary, target)
        sync_directory(directory)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    return size


def _fill(tar: tarfile.TarFile, members: Iterable[Member], facts: Mapping[str, Any]) -> None:
    files: dict[str, dict[str, Any]] = {}
    for member in members:
        if not safe(member.name):
            raise BackupError(
                "has a name that no backup can hold", where=member.path, todo="rename it, or move it away"
            )
        with open(member.path, "rb") as file:
            reader = _Hashing(file)
            info = _info(member.name, os.fstat(file.fileno()).st_size)
            tar.addfile(info, reader)
        files[member.name] = {"bytes": info.size, "sha256": reader.hexdigest(), "mode": member.mode}
    manifest = json.dumps({"format": FORMAT, "facts": facts, "files": files}, indent=1, sort_keys=True).encode()
    tar.addfile(_info(MANIFEST, len(manifest)), io.BytesIO(manifest))
    seal = hashlib.sha256(manifest).hexdigest().encode()
    tar.addfile(_info(SEAL, len(seal)), io.BytesIO(seal))


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info


class _Hashing:
    """A file that is summed up while it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sum = hashlib.sha256()
        self.hexdigest = self._sum.hexdigest

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self._sum.update(data)
        return data


def safe(name: str) -> bool:
    """Whether it can only lead below where it is unpacked."""
    return _NAME.fullmatch(name) is not None and len(name) < 1024


def read_archive(path: str, into: str) -> Contents:
    """Unpack into an empty directory. Raises ArchiveDamaged, BackupError; what lies in the directory is worth nothing then."""
    with _told_as_damage(path), gzip.open(path, "rb") as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
        sums: dict[str, tuple[int, str]] = {}
        manifest = b""
        while (info := tar.next()) is not None:
            file = tar.extractfile(info) if info.isreg() else None
            if file is None or not safe(info.name) or info.name in sums:
                raise ArchiveDamaged(f"{info.name!r} has no place in a backup", where=path)
            if info.name in (MANIFEST, SEAL):
                data = file.read(MANIFEST_BYTES)
                sums[info.name] = len(data), hashlib.sha256(data).hexdigest()
                if info.name == MANIFEST:
                    manifest = data
                elif data.decode("ascii", "replace") != hashlib.sha256(manifest).hexdigest():
                    raise ArchiveDamaged("its manifest is damaged", where=path)
            else:
                sums[info.name] = _unpack(file, f"{into}/{info.name}")
        while stream.read(CHUNK_BYTES):
            pass  # to the very end, where the checksum of the whole is
        if SEAL not in sums:
            raise ArchiveDamaged("it was cut off", where=path)
    return _compared(path, manifest, sums)


def read_config(path: str) -> tuple[dict[str, Any], bytes]:
    """The facts, and the main configuration file; nothing is unpacked, and nothing verified yet. Raises as ``read_archive``."""
    with _told_as_damage(path), gzip.open(path, "rb") as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
        found: dict[str, bytes] = {}
        while (info := tar.next()) is not None:
            if info.isreg() and (info.name == MANIFEST or os.path.dirname(info.name) == "config"):
                file = tar.extractfile(info)
                found[info.name] = file.read(MANIFEST_BYTES) if file is not None else b""
        facts = json.loads(found[MANIFEST])["facts"]
        return facts, found[f"config/{os.path.basename(str(facts['config']))}"]


def _unpack(file: IO[bytes], target: str) -> tuple[int, str]:
    os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)
    size, digest = 0, hashlib.sha256()
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as out:
        while data := file.read(CHUNK_BYTES):
            out.write(data)
            digest.update(data)
            size += len(data)
        out.flush()
        os.fsync(out.fileno())
    return size, digest.hexdigest()


def _compared(path: str, manifest: bytes, sums: Mapping[str, tuple[int, str]]) -> Contents:
    """What is there against what has to be."""
    data = json.loads(manifest)
    if data["format"] != FORMAT:
        raise BackupError(
            f"is of format {data['format']!r}, this joblet knows {FORMAT}",
            where=path,
            todo="install the version of joblet that wrote it, or a newer one",
        )
    files = data["files"]
    if files.keys() != sums.keys() - {MANIFEST, SEAL}:
        raise ArchiveDamaged("not all of its files are there", where=path)
    for name, told in files.items():
        if (told["bytes"], told["sha256"]) != sums[name]:
            raise ArchiveDamaged(f"{name} is not what the manifest says", where=path)
    return Contents(data["facts"], {name: int(told["mode"]) & 0o777 for name, told in files.items()})


@contextmanager
def _told_as_damage(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise BackupError("there is no such file", where=error.filename or path) from error
    except (tarfile.TarError, zlib.error, EOFError, ValueError, KeyError, TypeError) as error:
        raise ArchiveDamaged(f"it is no whole backup: {error}", where=path, todo="use another one") from error
    except OSError as error:
        if error.errno is None:  # gzip's own: a wrong magic number or checksum
            raise ArchiveDamaged(f"it is no whole backup: {error}", where=path, todo="use another one") from error
        raise BackupError(f"cannot be read or unpacked: {error.strerror}", where=error.filename or path) from error
