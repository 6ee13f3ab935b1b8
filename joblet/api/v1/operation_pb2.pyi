import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from joblet.api.v1 import node_pb2 as _node_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReportRequest(_message.Message):
    __slots__ = ("since_seconds",)
    SINCE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    since_seconds: int
    def __init__(self, since_seconds: _Optional[int] = ...) -> None: ...

class ReportResponse(_message.Message):
    __slots__ = ("node", "time", "processes", "jobs", "connections", "errors", "ended", "since_seconds", "declared_jobs", "state_free_bytes", "database_bytes", "log_level")
    NODE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    SINCE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DECLARED_JOBS_FIELD_NUMBER: _ClassVar[int]
    STATE_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DATABASE_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOG_LEVEL_FIELD_NUMBER: _ClassVar[int]
    node: _node_pb2.Node
    time: _timestamp_pb2.Timestamp
    processes: _containers.RepeatedCompositeFieldContainer[ProcessUse]
    jobs: _containers.RepeatedCompositeFieldContainer[ActiveJob]
    connections: _containers.RepeatedCompositeFieldContainer[Connection]
    errors: _containers.RepeatedCompositeFieldContainer[LogLine]
    ended: _containers.RepeatedCompositeFieldContainer[EndedRuns]
    since_seconds: int
    declared_jobs: int
    state_free_bytes: int
    database_bytes: int
    log_level: str
    def __init__(self, node: _Optional[_Union[_node_pb2.Node, _Mapping]] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., processes: _Optional[_Iterable[_Union[ProcessUse, _Mapping]]] = ..., jobs: _Optional[_Iterable[_Union[ActiveJob, _Mapping]]] = ..., connections: _Optional[_Iterable[_Union[Connection, _Mapping]]] = ..., errors: _Optional[_Iterable[_Union[LogLine, _Mapping]]] = ..., ended: _Optional[_Iterable[_Union[EndedRuns, _Mapping]]] = ..., since_seconds: _Optional[int] = ..., declared_jobs: _Optional[int] = ..., state_free_bytes: _Optional[int] = ..., database_bytes: _Optional[int] = ..., log_level: _Optional[str] = ...) -> None: ...

class ProcessUse(_message.Message):
    __slots__ = ("pid", "name", "memory_bytes", "tasks", "cpu_seconds")
    PID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    CPU_SECONDS_FIELD_NUMBER: _ClassVar[int]
    pid: int
    name: str
    memory_bytes: int
    tasks: int
    cpu_seconds: float
    def __init__(self, pid: _Optional[int] = ..., name: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., tasks: _Optional[int] = ..., cpu_seconds: _Optional[float] = ...) -> None: ...

class ActiveJob(_message.Message):
    __slots__ = ("job", "run_id", "started", "memory_bytes", "memory_peak_bytes", "cpu_seconds", "pids")
    JOB_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_PEAK_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PIDS_FIELD_NUMBER: _ClassVar[int]
    job: str
    run_id: str
    started: _timestamp_pb2.Timestamp
    memory_bytes: int
    memory_peak_bytes: int
    cpu_seconds: float
    pids: int
    def __init__(self, job: _Optional[str] = ..., run_id: _Optional[str] = ..., started: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., memory_bytes: _Optional[int] = ..., memory_peak_bytes: _Optional[int] = ..., cpu_seconds: _Optional[float] = ..., pids: _Optional[int] = ...) -> None: ...

class Connection(_message.Message):
    __slots__ = ("client", "role", "address")
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    client: str
    role: str
    address: str
    def __init__(self, client: _Optional[str] = ..., role: _Optional[str] = ..., address: _Optional[str] = ...) -> None: ...

class LogLine(_message.Message):
    __slots__ = ("time", "level", "text")
    TIME_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    time: str
    level: str
    text: str
    def __init__(self, time: _Optional[str] = ..., level: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class EndedRuns(_message.Message):
    __slots__ = ("phase", "reason", "count", "mean_seconds")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    MEAN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    phase: str
    reason: str
    count: int
    mean_seconds: float
    def __init__(self, phase: _Optional[str] = ..., reason: _Optional[str] = ..., count: _Optional[int] = ..., mean_seconds: _Optional[float] = ...) -> None: ...

class GetLogLevelRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SetLogLevelRequest(_message.Message):
    __slots__ = ("level", "seconds")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    level: str
    seconds: float
    def __init__(self, level: _Optional[str] = ..., seconds: _Optional[float] = ...) -> None: ...

class LogLevel(_message.Message):
    __slots__ = ("level", "configured", "seconds_left")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    CONFIGURED_FIELD_NUMBER: _ClassVar[int]
    SECONDS_LEFT_FIELD_NUMBER: _ClassVar[int]
    level: str
    configured: str
    seconds_left: float
    def __init__(self, level: _Optional[str] = ..., configured: _Optional[str] = ..., seconds_left: _Optional[float] = ...) -> None: ...
