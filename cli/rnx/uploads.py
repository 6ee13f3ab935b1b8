"""Local files on their way to the daemon: what may go, its checksum, and only what the daemon does not have yet."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnx.failures import ClientError, InvalidRequest

if TYPE_CHECKING:
    from joblet.api.v1 import file_pb2
    from rnx.daemon import Daemon
    from rnx.manifest_files import ManifestFile

CHUNK_BYTES = 128 << 10  # below the least that grpc.maxRecvMsgSize is set to in practice
MOST_FILES = 1000  # that a job may have
STDIN_NAME = "stdin"


@dataclass(frozen=True, slots=True)
class LocalContent:
    """A file as it was when it was looked at. path: where it is read from."""

    path: str
    sha256: str
    size: int
    mode: int

    def entry(self, path: str) -> dict[str, Any]:
        """What stands for it in spec.files."""
        return {"path": path, "mode": f"{self.mode:04o}", "sha256": self.sha256, "size": self.size}


def look_at(path: str, what: str) -> LocalContent:
    """Read it once for its checksum. what: names it in errors. Raises InvalidRequest."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            todo = f"use --upload-dir {path}" if stat.S_ISDIR(status.st_mode) else "only regular files can be uploaded"
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
            raise InvalidRequest(f"{what}: is {kind}", todo=todo)
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
            size = file.tell()
    except OSError as error:
        raise InvalidRequest(f"{what}: {error.strerror}", todo="check the path") from error
    return LocalContent(path, digest.hexdigest(), size, stat.S_IMODE(status.st_mode) & 0o777)


def of_directory(top: str, what: str) -> tuple[list[dict[str, Any]], list[LocalContent]]:
    """All below a directory, as entries of spec.files, and their contents. Raises InvalidRequest for what cannot go."""
    if not os.path.isdir(top):
        raise InvalidRequest(f"{what}: there is no such directory", todo="check the path")
    entries: list[dict[str, Any]] = []
    contents: list[LocalContent] = []
    for name, full, is_link in _walk(top, "", what):
        if len(entries) == MOST_FILES:
            raise InvalidRequest(
                f"{what}: holds more than {MOST_FILES} files", todo="upload a tar archive, and unpack it in the job"
            )
        if is_link:
            entries.append({"path": name, "link": os.readlink(full)})
        else:
            content = look_at(full, f"{what}: {name}")
            entries.append(content.entry(name))
            contents.append(content)
    return entries, contents


def _walk(directory: str, prefix: str, what: str) -> Iterator[tuple[str, str, bool]]:
    """Path from the top, path here, whether it is a link; in the order of their names. Links are not followed."""
    from joblet.manifest.rules import leads_out

    try:
        found = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError as error:
        raise InvalidRequest(f"{what}: {prefix or '.'}: {error.strerror}", todo="check its permissions") from error
    for entry in found:
        name = prefix + entry.name
        try:
            name.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(name).decode(errors="backslashreplace")
            raise InvalidRequest(f"{what}: {shown}: the name is not UTF-8", todo="rename it") from None
        if entry.is_symlink():
            if leads_out(name, os.readlink(entry.path)):
                raise InvalidRequest(
                    f"{what}: {name}: the link leads out of the directory", todo="put the file itself there"
                )
            yield name, entry.path, True
        elif entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, f"{name}/", what)
        elif entry.is_file(follow_symlinks=False):
            yield name, entry.path, False
        else:
            raise InvalidRequest(f"{what}: {name}: is no file, directory or link", todo="leave it out")


def of_manifests(file: ManifestFile) -> dict[str, LocalContent]:
    """What each ``from`` in a file's jobs stands for: beside the file, or below. Raises InvalidRequest."""
    from joblet.manifest import jobs_of

    directory = "." if file.name == STDIN_NAME else os.path.dirname(file.name) or "."
    found: dict[str, LocalContent] = {}
    for job in jobs_of(file.manifests):
        for one in job.spec.files:
            if one.source is None or one.source in found:
                continue
            what = f"{file.name}: from: {one.source}"
            path = os.path.join(directory, one.source)
            if not Path(path).resolve().is_relative_to(Path(directory).resolve()):
                raise InvalidRequest(
                    f"{what}: a link leads out of the manifest's directory", todo="put the file itself there"
                )
            found[one.source] = look_at(path, what)
    return found


def local_files(found: Mapping[str, LocalContent]) -> list[dict[str, Any]]:
    """The same for an ApplyRequest."""
    return [{"from": source, "sha256": one.sha256, "size": one.size, "mode": one.mode} for source, one in found.items()]


def send(daemon: Daemon, contents: Sequence[LocalContent], *, quiet: bool = False) -> None:
    """Upload what the daemon does not have. quiet: without a bar. Raises ClientError."""
    by_sum = {one.sha256: one for one in contents}
    if not by_sum:
        return
    wanted = [by_sum[sha256] for sha256 in daemon.find_missing([(one.sha256, one.size) for one in by_sum.values()])]
    if not wanted:
        return
    from rnx.output.terminal import byte_progress

    unreadable: list[str] = []
    with byte_progress("uploading", sum(one.size for one in wanted), quiet=quiet) as advance:
        try:
            daemon.upload(_messages(wanted, advance, unreadable))
        except ClientError as error:
            if unreadable:
                raise InvalidRequest(unreadable[0], todo="nothing was applied; try again") from error
            raise


def _messages(wanted: Sequence[LocalContent], advance: Any, unreadable: list[str]) -> Iterator[file_pb2.UploadRequest]:
    """unreadable: gets what went wrong here; the daemon then finds that something is missing."""
    from joblet.api.v1 import file_pb2

    for one in wanted:
        begin: file_pb2.Content | None = file_pb2.Content(sha256=one.sha256, size=one.size)
        try:
            with open(one.path, "rb") as file:
                while (data := file.read(CHUNK_BYTES)) or begin is not None:
                    yield file_pb2.UploadRequest(begin=begin, data=data)
                    begin = None
                    advance(len(data))
        except OSError as error:
            unreadable.append(f"{one.path}: {error.strerror}")
            return
