"""Requests checked and turned into the daemon's words: what is wrong with one is answered with the field that is."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from joblet.api.v1 import job_pb2
from joblet.errors import JobletError
from joblet.manifest import MOST_INDEXES, Manifest, read_manifests
from jobletd.arrays.progress import Mark
from jobletd.blobs.naming import LocalFile, with_contents
from jobletd.executor import LogQuery
from jobletd.lookup import LONGEST_INDEX
from jobletd.model import Phase

PAGE = 500
LARGEST_PAGE = 5000
SHA256 = re.compile(r"[0-9a-f]{64}")
PERMISSIONS = 0o777
STREAMS = ("", "stdout", "stderr")
# What takes longer than this to parse would hold up every other call.
INLINE_BYTES = 1 << 15
LATEST_SECONDS = 1 << 33  # some 270 years from 1970, within what 64 bits of nanoseconds hold


class InvalidRequest(JobletError):
    """A field of a request has a value that it cannot have."""

    def __init__(self, field: str, what: str, *, todo: str = "") -> None:
        self.field = field
        super().__init__(what, where=field, todo=todo)


async def manifests_of(request: job_pb2.ApplyRequest) -> tuple[Manifest, ...]:
    """Raises ManifestErrors, InvalidRequest."""
    filename = request.filename or "manifest"
    if len(request.manifest) <= INLINE_BYTES:
        manifests = read_manifests(request.manifest, filename=filename)
    else:
        manifests = await asyncio.to_thread(read_manifests, request.manifest, filename=filename)
    return with_contents(manifests, local_files_of(request))


def local_files_of(request: job_pb2.ApplyRequest) -> dict[str, LocalFile]:
    """What the client says of its own files, by the path that the manifest has."""
    found: dict[str, LocalFile] = {}
    for file in request.files:
        source = getattr(file, "from")  # a word of Python's own
        if not SHA256.fullmatch(file.sha256) or file.size < 0 or file.mode & ~PERMISSIONS:
            raise InvalidRequest("files", f"{source!r} has no SHA-256, size and permission bits")
        found[source] = LocalFile(file.sha256, file.size, file.mode)
    return found


def page_size_of(request: job_pb2.ListRequest | job_pb2.IndexesRequest) -> int:
    if request.page_size < 0:
        raise InvalidRequest("page_size", f"{request.page_size} is negative", todo=f"0 means {PAGE}")
    return min(request.page_size or PAGE, LARGEST_PAGE)


def phases_of(names: Iterable[str]) -> frozenset[Phase]:
    try:
        return frozenset(Phase(name.upper()) for name in names)
    except ValueError as error:
        raise InvalidRequest("phases", str(error), todo=f"phases are {', '.join(Phase)}") from error


def marks_of(states: Iterable[str]) -> frozenset[Mark]:
    try:
        return frozenset(Mark[name.upper()] for name in states)
    except KeyError as error:
        todo = f"an index is {', '.join(mark.name for mark in Mark)}"
        raise InvalidRequest("states", f"there is no state {error}", todo=todo) from error


def index_after(token: str) -> int:
    """The last index of the page before; -1: there was none."""
    if not token:
        return -1
    if not (token.isascii() and token.isdecimal() and len(token) <= LONGEST_INDEX):
        raise InvalidRequest("page_token", "is none that was given out", todo="leave it out for the first page")
    return int(token)


def ranges_of(ranges: Sequence[job_pb2.IndexRange]) -> list[range]:
    for one in ranges:
        if not 0 <= one.first <= one.last:
            raise InvalidRequest("indexes", f"{one.first} to {one.last} is no range of indexes", todo="3, or 5 to 9")
    if sum(one.last - one.first + 1 for one in ranges) > MOST_INDEXES:
        raise InvalidRequest("indexes", f"names more than {MOST_INDEXES}", todo="an array has no more")
    return [range(one.first, one.last + 1) for one in ranges]


def log_query_of(request: job_pb2.LogsRequest) -> LogQuery:
    if request.stream not in STREAMS:
        raise InvalidRequest(
            "stream", f"there is no stream {request.stream!r}", todo="stdout, stderr, or empty for both"
        )
    if request.attempt < 0:
        raise InvalidRequest("attempt", f"{request.attempt} is negative", todo="0 means all, 1 the first")
    if request.tail_lines < 0:
        raise InvalidRequest("tail_lines", f"{request.tail_lines} is negative", todo="leave it out for all lines")
    return LogQuery(
        since_ns=nanoseconds_of(request.since, "since") if request.HasField("since") else 0,
        tail_lines=request.tail_lines if request.HasField("tail_lines") else None,
        stream=request.stream,
        follow=request.follow,
    )


def nanoseconds_of(instant: Timestamp, field: str) -> int:
    if not 0 <= instant.seconds <= LATEST_SECONDS or not 0 <= instant.nanos < 10**9:
        raise InvalidRequest(field, "is no time since 1970")
    return instant.ToNanoseconds()
