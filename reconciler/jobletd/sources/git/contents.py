"""The files of a commit that its jobs name by ``from``: found in its tree and nowhere else, and kept as uploads are."""

from __future__ import annotations

import asyncio
import hashlib
import posixpath
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import BinaryIO

from joblet.errors import JobletError
from joblet.manifest import Manifest, jobs_of
from joblet.manifest.errors import ManifestError
from jobletd.blobs.naming import LocalFile, with_contents
from jobletd.blobs.store import BlobStore
from jobletd.blobs.upload import Upload
from jobletd.sources.git.repository import Entry, Mirror
from jobletd.sources.git.tree import LFS, LINK, Tree

SMALL_BYTES = 1 << 20  # up to that many are read together, into memory
TOGETHER_BYTES = 16 << 20
CHUNK_BYTES = 1 << 20
EXECUTABLE = "100755"


@dataclass(frozen=True, slots=True)
class _Named:
    """One ``from``. place: where it stands, for errors."""

    manifest: str
    place: str
    source: str
    entry: Entry


class Contents:
    """Brings what a commit's jobs name into the store of contents. check_room: raises JobletError if the disk is full."""

    def __init__(self, store: BlobStore, check_room: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self._check_room = check_room
        self._known: dict[str, str] = {}  # SHA-256 by git's own id, which stands for the content for ever

    async def resolved(self, mirror: Mirror, tree: Tree) -> Tree:
        """The tree with a content in place of each ``from``; or all that is wrong with these. Raises GitError, OSError."""
        named = list(_named(tree))
        errors = [one for one in named if isinstance(one, ManifestError)]
        found = [one for one in named if isinstance(one, _Named)]
        if not named:
            return tree
        if not errors:
            errors = await self._bring(mirror, found)
        if errors:
            return replace(tree, manifests={}, errors=tuple(errors))
        self._known = {one.entry.object: self._known[one.entry.object] for one in found}
        manifests = {file: self._with_contents(file, declared, found) for file, declared in tree.manifests.items()}
        return replace(tree, manifests=manifests)

    def _with_contents(
        self, file: str, manifests: tuple[Manifest, ...], found: Iterable[_Named]
    ) -> tuple[Manifest, ...]:
        local = {
            one.source: LocalFile(
                self._known[one.entry.object], one.entry.size, 0o755 if one.entry.mode == EXECUTABLE else 0o644
            )
            for one in found
            if one.manifest == file
        }
        return with_contents(manifests, local)

    async def _bring(self, mirror: Mirror, found: Iterable[_Named]) -> list[ManifestError]:
        """Have all of these in the store. Returns what cannot be had."""
        wanted = {one.entry.object: one for one in found if not self._has(one.entry)}
        errors = [_error(one, why) for one in wanted.values() if (why := self._too_large(one.entry))]
        if errors or not wanted:
            return errors
        small = [one for one in wanted.values() if one.entry.size <= SMALL_BYTES]
        for group in _groups(small):
            data = await mirror.contents([one.entry.object for one in group], sum(one.entry.size for one in group))
            for one, content in zip(group, data, strict=True):
                errors += await self._take(one, content)
        for one in (one for one in wanted.values() if one.entry.size > SMALL_BYTES):
            with tempfile.TemporaryFile(dir=mirror.place, prefix=".content-") as file:
                await mirror.write(one.entry.object, file.fileno(), one.entry.size)
                errors += await self._take(one, file)
        return errors

    def _has(self, entry: Entry) -> bool:
        sha256 = self._known.get(entry.object)
        return sha256 is not None and self._store.use(sha256, entry.size)

    def _too_large(self, entry: Entry) -> str:
        most = self._store.limits.file_bytes
        return f"has {entry.size} bytes, uploads.maxFileBytes allows {most}" if entry.size > most else ""

    async def _take(self, one: _Named, content: bytes | BinaryIO) -> list[ManifestError]:
        if isinstance(content, bytes) and content.startswith(LFS):
            return [_error(one, "is a pointer to Git LFS, which is not followed; git lfs untrack it, and commit it")]
        try:
            self._check_room()
            self._known[one.entry.object] = await asyncio.to_thread(self._store_one, one.entry.size, content)
        except JobletError as error:
            return [_error(one, str(error))]
        return []

    def _store_one(self, size: int, content: bytes | BinaryIO) -> str:
        """By the way that uploads come, with all its checks. Returns its SHA-256. Raises UploadRefused, OSError."""
        digest = hashlib.sha256()
        for chunk in _chunks(content):
            digest.update(chunk)
        sha256 = digest.hexdigest()
        upload = Upload(self._store)
        try:
            upload.begin(sha256, size)
            for chunk in _chunks(content):
                upload.write(chunk)
            upload.finish()
        finally:
            upload.close()
        return sha256


def _named(tree: Tree) -> Iterator[_Named | ManifestError]:
    """Every ``from`` of every job, and each that names nothing that may be taken."""
    for file, manifests in tree.manifests.items():
        for job in jobs_of(manifests):
            for number, one in enumerate(job.spec.files):
                if one.source is None:
                    continue
                place = f"job {job.metadata.name}: spec.files[{number}].from"
                path = posixpath.normpath(posixpath.join(posixpath.dirname(file), one.source))
                entry = tree.files.get(path)
                why = _refusal(path, entry, tree.files)
                if entry is None or why:
                    yield ManifestError(file, 1, 1, 0, place, f"{one.source}: {why}")
                else:
                    yield _Named(file, place, one.source, entry)


def _refusal(path: str, entry: Entry | None, files: Mapping[str, Entry]) -> str:
    """Why that is no file of the commit."""
    if entry is None:
        if any(name.startswith(f"{path}/") for name in files):
            return "is a directory; name its files one by one"
        parents = (path.rsplit("/", depth)[0] for depth in range(1, path.count("/") + 1))
        above = next((files[name] for name in parents if name in files), None)
        if above is not None and above.mode == LINK:
            return "lies behind a symbolic link, and none is followed; put the file itself there"
        if above is not None:
            return f"lies below {above.path}, which is no directory of this repository"
        return "there is no such file in the commit"
    if entry.mode == LINK:
        return "is a symbolic link, and none is followed; put the file itself there"
    return "" if entry.type == "blob" else "is a submodule, which is not followed"


def _error(one: _Named, why: str) -> ManifestError:
    return ManifestError(one.manifest, 1, 1, 0, one.place, f"{one.source}: {why}")


def _groups(small: Iterable[_Named]) -> Iterator[list[_Named]]:
    """Parts that are read at once."""
    group: list[_Named] = []
    total = 0
    for one in small:
        if group and total + one.entry.size > TOGETHER_BYTES:
            yield group
            group, total = [], 0
        group.append(one)
        total += one.entry.size
    if group:
        yield group


def _chunks(content: bytes | BinaryIO) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    content.seek(0)
    while chunk := content.read(CHUNK_BYTES):
        yield chunk
