"""Where jobs name contents: which ones they need, and what stands for a file that lies on the client's machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from joblet.errors import JobletError
from joblet.manifest import FileSpec, JobManifest, Manifest
from jobletd.blobs.store import BlobStore

M = TypeVar("M", bound=Manifest)


class ContentMissing(JobletError):
    """A file of a job whose content is not here."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """What a client says about a file of its own. mode: used where the manifest names none."""

    sha256: str
    size: int
    mode: int


def contents_of(job: JobManifest) -> Iterator[tuple[str, int]]:
    """SHA-256 and size of each content that a job names."""
    for file in job.spec.files:
        if file.sha256 is not None and file.size is not None:
            yield file.sha256, file.size


def with_contents(manifests: Iterable[Manifest], local: Mapping[str, LocalFile]) -> tuple[Manifest, ...]:
    """The manifests with what ``from`` stands for in its place, as far as the client has told."""
    return tuple(_resolved(one, local) if isinstance(one, JobManifest) else one for one in manifests)


def _resolved(job: JobManifest, local: Mapping[str, LocalFile]) -> JobManifest:
    if not any(file.source in local for file in job.spec.files if file.source is not None):
        return job
    files = tuple(_file(file, local) for file in job.spec.files)
    return job.model_copy(update={"spec": job.spec.model_copy(update={"files": files})})


def _file(file: FileSpec, local: Mapping[str, LocalFile]) -> FileSpec:
    if file.source is None or (found := local.get(file.source)) is None:
        return file
    mode = file.mode if "mode" in file.model_fields_set else found.mode
    return FileSpec.model_construct(path=file.path, mode=mode, sha256=found.sha256, size=found.size)


def check_contents(job: JobManifest, store: BlobStore, *, present: bool) -> None:
    """Whether this job can be had. present: its contents must be here, else only named. Raises ContentMissing."""
    for number, file in enumerate(job.spec.files):
        where = f"job {job.metadata.name}: spec.files[{number}] ({file.path})"
        if file.source is not None:
            raise ContentMissing(
                f'"from: {file.source}" names a file on the machine of whoever applies it, and none came with it',
                where=where,
                todo="apply it with rnx apply -f; in the spool give the text itself as content",
            )
        if present and file.sha256 is not None and file.size is not None and not store.use(file.sha256, file.size):
            raise ContentMissing(
                f"this host does not have the content {file.sha256[:12]}... of {file.size} bytes",
                where=where,
                todo="rnx apply of a manifest with from: FILE uploads it; a content that no job names is removed in time",
            )
