"""Uploads: a stream of messages, each behind its length. What is refused, and what breaks off, leaves nothing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from google.protobuf.message import DecodeError

from joblet.api.v1 import file_pb2
from jobletd.blobs.store import BlobLimits, BlobStore, UploadRefused
from jobletd.blobs.upload import Upload
from tests.faults.fuzz.reader import Reader

MOST_MESSAGES = 2000
LIMITS = BlobLimits(1 << 16, 1 << 18)


def make(directory: Path) -> Reader:
    store = BlobStore(str(directory / "blobs"), LIMITS)
    store.open()

    def read(data: bytes) -> bool:
        upload = Upload(store)
        try:
            for message in messages(data):
                if message.HasField("begin"):
                    upload.begin(message.begin.sha256, message.begin.size)
                if message.data:
                    upload.write(message.data)
            upload.finish()
        except UploadRefused as error:
            str(error).encode()
            return False
        finally:
            upload.close()
            assert not os.listdir(directory / "blobs/incoming")
            for name, size, _ in store.contents():
                content = Path(store.path(name)).read_bytes()
                assert hashlib.sha256(content).hexdigest() == name and len(content) == size
                os.unlink(store.path(name))
            store.open()
        return True

    contents = [b"", b"x", bytes(5000)]
    return Reader(
        read=read, samples=[b"".join(map(stream, contents)), *map(stream, contents)], tokens=[b"\x0a", b"\x12"]
    )


def stream(content: bytes) -> bytes:
    begin = file_pb2.Content(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    parts = [file_pb2.UploadRequest(begin=begin)]
    parts += [file_pb2.UploadRequest(data=content[at : at + 1000]) for at in range(0, len(content), 1000)]
    texts = [part.SerializeToString() for part in parts]
    return b"".join(len(text).to_bytes(2, "big") + text for text in texts)


def messages(data: bytes) -> Iterator[file_pb2.UploadRequest]:
    """What is no message is left out: gRPC itself refuses it (test_requests.py)."""
    at = 0
    for _ in range(MOST_MESSAGES):
        size = int.from_bytes(data[at : at + 2], "big")
        with suppress(DecodeError):
            yield file_pb2.UploadRequest.FromString(data[at + 2 : at + 2 + size])
        at += 2 + size
        if at >= len(data):
            return
