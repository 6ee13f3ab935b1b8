import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from joblet.api.v1 import job_pb2 as _job_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListAttemptsRequest(_message.Message):
    __slots__ = ("attempt_ids",)
    ATTEMPT_IDS_FIELD_NUMBER: _ClassVar[int]
    attempt_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, attempt_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class ListAttemptsResponse(_message.Message):
    __slots__ = ("attempts", "version")
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    attempts: _containers.RepeatedCompositeFieldContainer[NodeAttempt]
    version: str
    def __init__(self, attempts: _Optional[_Iterable[_Union[NodeAttempt, _Mapping]]] = ..., version: _Optional[str] = ...) -> None: ...

class NodeAttempt(_message.Message):
    __slots__ = ("attempt_id", "claim", "state", "exit", "log_bytes", "usage")
    ATTEMPT_ID_FIELD_NUMBER: _ClassVar[int]
    CLAIM_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    EXIT_FIELD_NUMBER: _ClassVar[int]
    LOG_BYTES_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    attempt_id: str
    claim: bytes
    state: bytes
    exit: bytes
    log_bytes: int
    usage: bytes
    def __init__(self, attempt_id: _Optional[str] = ..., claim: _Optional[bytes] = ..., state: _Optional[bytes] = ..., exit: _Optional[bytes] = ..., log_bytes: _Optional[int] = ..., usage: _Optional[bytes] = ...) -> None: ...

class ReadAttemptLogRequest(_message.Message):
    __slots__ = ("attempt_id", "follow", "stream", "tail_lines", "since")
    ATTEMPT_ID_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    TAIL_LINES_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    attempt_id: str
    follow: bool
    stream: str
    tail_lines: int
    since: _timestamp_pb2.Timestamp
    def __init__(self, attempt_id: _Optional[str] = ..., follow: _Optional[bool] = ..., stream: _Optional[str] = ..., tail_lines: _Optional[int] = ..., since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class FetchAttemptLogRequest(_message.Message):
    __slots__ = ("attempt_id", "part", "offset", "follow")
    ATTEMPT_ID_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    attempt_id: str
    part: int
    offset: int
    follow: bool
    def __init__(self, attempt_id: _Optional[str] = ..., part: _Optional[int] = ..., offset: _Optional[int] = ..., follow: _Optional[bool] = ...) -> None: ...

class FetchAttemptLogResponse(_message.Message):
    __slots__ = ("part", "offset", "data", "oldest_part")
    PART_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    OLDEST_PART_FIELD_NUMBER: _ClassVar[int]
    part: int
    offset: int
    data: bytes
    oldest_part: int
    def __init__(self, part: _Optional[int] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., oldest_part: _Optional[int] = ...) -> None: ...

class FenceAttemptRequest(_message.Message):
    __slots__ = ("attempt_id",)
    ATTEMPT_ID_FIELD_NUMBER: _ClassVar[int]
    attempt_id: str
    def __init__(self, attempt_id: _Optional[str] = ...) -> None: ...

class FenceAttemptResponse(_message.Message):
    __slots__ = ("fenced", "claim")
    FENCED_FIELD_NUMBER: _ClassVar[int]
    CLAIM_FIELD_NUMBER: _ClassVar[int]
    fenced: bool
    claim: bytes
    def __init__(self, fenced: _Optional[bool] = ..., claim: _Optional[bytes] = ...) -> None: ...

class ForgetAttemptRequest(_message.Message):
    __slots__ = ("attempt_id",)
    ATTEMPT_ID_FIELD_NUMBER: _ClassVar[int]
    attempt_id: str
    def __init__(self, attempt_id: _Optional[str] = ...) -> None: ...

class ForgetAttemptResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
