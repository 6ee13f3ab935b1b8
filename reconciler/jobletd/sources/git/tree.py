"""What the files of one commit declare: all of it, or all that is wrong with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from joblet.manifest import Manifest, ManifestErrors, key_of, read_manifests
from joblet.manifest.errors import ManifestError
from jobletd.model import JobName
from jobletd.sources.git.repository import Entry, Mirror, NoSuchRevision
from jobletd.sources.spool_files import MAX_FILE_BYTES, is_manifest_name

MAX_FILES = 10_000
MAX_ALL_BYTES = 64 << 20
LINK, _SUBMODULE = "120000", "commit"
LFS = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True, slots=True)
class Tree:
    """manifests: by file, whose path is that from the repository's top. passed_over: what is there and has no meaning.

    missing: why there is no such directory; git knows none that are empty, so a removal of everything looks like that too.
    files: all that lies there, by the same paths, for what jobs name by ``from``.
    """

    manifests: Mapping[str, tuple[Manifest, ...]]
    errors: tuple[ManifestError, ...]
    passed_over: tuple[str, ...] = ()
    missing: str = ""
    files: Mapping[str, Entry] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(map(len, self.manifests.values()))


async def read_tree(mirror: Mirror, commit: str, path: str) -> Tree:
    """Read and check all manifests of a commit below a directory. Raises GitError."""
    try:
        entries = await mirror.entries(commit, path)
    except NoSuchRevision as away:
        return Tree({}, (), missing=str(away))
    submodules = [entry.path for entry in entries if entry.type == _SUBMODULE]
    wanted = [entry for entry in entries if counts(entry)]
    prefix = "" if path == "." else f"{path}/"
    errors = [error for entry in wanted if (error := refusal(entry, prefix)) is not None]
    total = sum(entry.size for entry in wanted)
    if len(wanted) > MAX_FILES:
        errors.append(_error(path, f"holds {len(wanted)} manifest files, at most {MAX_FILES} are read"))
    if total > MAX_ALL_BYTES:
        errors.append(_error(path, f"its manifests hold more than {MAX_ALL_BYTES >> 20} MiB together"))
    passed_over = tuple(f"submodule {prefix}{name} is not followed" for name in submodules)
    if errors:
        return Tree({}, tuple(errors), passed_over)
    contents = await mirror.contents([entry.object for entry in wanted], total)
    names = [prefix + entry.path for entry in wanted]
    manifests, found = await asyncio.to_thread(parsed, names, contents)
    return Tree(manifests, tuple(found), passed_over, files={prefix + entry.path: entry for entry in entries})


def counts(entry: Entry) -> bool:
    """A file (or a link in its place) with a manifest's name, in no hidden directory."""
    directories, _, name = entry.path.rpartition("/")
    hidden = any(part.startswith(".") for part in directories.split("/"))
    return entry.type == "blob" and not hidden and is_manifest_name(name)


def refusal(entry: Entry, prefix: str) -> ManifestError | None:
    """Why a file is not even read."""
    file = prefix + entry.path
    if not entry.valid:
        return _error(file, "the file's name is not UTF-8; give it another one")
    if entry.mode == LINK:
        return _error(file, "is a symbolic link, and none is followed; put the file itself here")
    if entry.size > MAX_FILE_BYTES:
        return _error(file, f"the file is larger than {MAX_FILE_BYTES >> 20} MiB")
    return None


def parsed(
    names: Sequence[str], contents: Sequence[bytes]
) -> tuple[dict[str, tuple[Manifest, ...]], list[ManifestError]]:
    manifests: dict[str, tuple[Manifest, ...]] = {}
    errors: list[ManifestError] = []
    for name, data in zip(names, contents, strict=True):
        if data.startswith(LFS):
            errors.append(
                _error(name, "is a pointer to Git LFS, which is not followed; git lfs untrack it, and commit it")
            )
            continue
        try:
            manifests[name] = read_manifests(data, filename=name)
        except ManifestErrors as found:
            errors.extend(found.errors)
    errors.extend(_doubles(manifests.items()))
    return manifests, errors


def _doubles(files: Iterable[tuple[str, tuple[Manifest, ...]]]) -> list[ManifestError]:
    """In the spool the first file keeps a name; in a commit, which is whole, it is a mistake."""
    first: dict[JobName, str] = {}
    return [
        ManifestError(file, 1, 1, 0, "metadata.name", f"{key} is declared in {other} too")
        for file, manifests in files
        for key in map(JobName, map(key_of, manifests))
        if (other := first.setdefault(key, file)) != file
    ]


def _error(file: str, message: str) -> ManifestError:
    return ManifestError(file, 1, 1, 0, "", message)
