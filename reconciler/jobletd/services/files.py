"""FileService: contents of files come in, before the manifests that name them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from joblet.api.v1 import file_pb2, file_pb2_grpc
from jobletd.blobs.store import BlobStore, UploadRefused
from jobletd.blobs.upload import MAX_CONTENTS, Upload
from jobletd.services.jobs import note
from jobletd.services.requests import SHA256, InvalidRequest
from jobletd.services.status_codes import answered

Context = grpc.aio.ServicerContext[Any, Any]


class FileService(file_pb2_grpc.FileServiceServicer):
    """See schemas/joblet/v1/file.proto for what each method promises."""

    def __init__(self, store: BlobStore, check_room: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self._check_room = check_room

    async def FindMissing(self, request: file_pb2.FindMissingRequest, context: Context) -> file_pb2.FindMissingResponse:
        async with answered(context):
            if len(request.contents) > MAX_CONTENTS:
                raise InvalidRequest("contents", f"there are more than {MAX_CONTENTS}", todo="ask in parts")
            for content in request.contents:
                if not SHA256.fullmatch(content.sha256):
                    raise InvalidRequest("contents.sha256", "is not a SHA-256 in lower-case hex")
            missing = [one.sha256 for one in request.contents if not self._store.use(one.sha256, one.size)]
            return file_pb2.FindMissingResponse(sha256=dict.fromkeys(missing))
        raise AssertionError("unreachable")

    async def Upload(
        self, request_iterator: AsyncIterator[file_pb2.UploadRequest], context: Context
    ) -> file_pb2.UploadResponse:
        async with answered(context):
            self._check_room()
            upload = Upload(self._store)
            try:
                async for message in request_iterator:
                    await _finished(_take, upload, message)
                await _finished(upload.finish)
            except OSError as error:
                raise UploadRefused(
                    f"the host cannot keep it: {error.strerror}", where="upload", todo="see the host's disk"
                ) from error
            finally:
                upload.close()
            note("upload", contents=upload.count, bytes=upload.bytes)
            return file_pb2.UploadResponse(count=upload.count, bytes=upload.bytes)
        raise AssertionError("unreachable")


async def _finished(function: Any, *arguments: Any) -> None:
    """Run it in a thread to its end, even if the client goes away meanwhile: what it holds is closed only then."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


def _take(upload: Upload, message: file_pb2.UploadRequest) -> None:
    if message.HasField("begin"):
        upload.begin(message.begin.sha256, message.begin.size)
    if message.data:
        upload.write(message.data)
