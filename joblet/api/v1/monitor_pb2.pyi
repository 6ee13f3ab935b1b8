import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from joblet.api.v1 import job_pb2 as _job_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetProfileRequest(_message.Message):
    __slots__ = ("ref", "attempt")
    REF_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    ref: str
    attempt: int
    def __init__(self, ref: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...

class Profile(_message.Message):
    __slots__ = ("run_id", "attempt", "samples")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    attempt: int
    samples: _containers.RepeatedCompositeFieldContainer[ProfileSample]
    def __init__(self, run_id: _Optional[str] = ..., attempt: _Optional[int] = ..., samples: _Optional[_Iterable[_Union[ProfileSample, _Mapping]]] = ...) -> None: ...

class ProfileSample(_message.Message):
    __slots__ = ("at_seconds", "memory_bytes", "cpu_seconds", "throttled_seconds", "io_read_bytes", "io_write_bytes")
    AT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_SECONDS_FIELD_NUMBER: _ClassVar[int]
    THROTTLED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    IO_READ_BYTES_FIELD_NUMBER: _ClassVar[int]
    IO_WRITE_BYTES_FIELD_NUMBER: _ClassVar[int]
    at_seconds: float
    memory_bytes: int
    cpu_seconds: float
    throttled_seconds: float
    io_read_bytes: int
    io_write_bytes: int
    def __init__(self, at_seconds: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., cpu_seconds: _Optional[float] = ..., throttled_seconds: _Optional[float] = ..., io_read_bytes: _Optional[int] = ..., io_write_bytes: _Optional[int] = ...) -> None: ...

class WatchUsageRequest(_message.Message):
    __slots__ = ("interval_ms", "max_jobs")
    INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_JOBS_FIELD_NUMBER: _ClassVar[int]
    interval_ms: int
    max_jobs: int
    def __init__(self, interval_ms: _Optional[int] = ..., max_jobs: _Optional[int] = ...) -> None: ...

class NodeUsage(_message.Message):
    __slots__ = ("time", "interval_seconds", "cpus", "cpu_percent", "cpu_percent_each", "load", "memory_bytes", "memory_used_bytes", "swap_bytes", "swap_used_bytes", "disks", "disk_read_rate", "disk_write_rate", "network_receive_rate", "network_send_rate", "processes", "uptime_seconds", "running_jobs", "queued_jobs", "jobs", "cpu_pressure", "memory_pressure", "io_pressure")
    TIME_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    CPU_PERCENT_FIELD_NUMBER: _ClassVar[int]
    CPU_PERCENT_EACH_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    SWAP_BYTES_FIELD_NUMBER: _ClassVar[int]
    SWAP_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISKS_FIELD_NUMBER: _ClassVar[int]
    DISK_READ_RATE_FIELD_NUMBER: _ClassVar[int]
    DISK_WRITE_RATE_FIELD_NUMBER: _ClassVar[int]
    NETWORK_RECEIVE_RATE_FIELD_NUMBER: _ClassVar[int]
    NETWORK_SEND_RATE_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_JOBS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_JOBS_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    CPU_PRESSURE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_PRESSURE_FIELD_NUMBER: _ClassVar[int]
    IO_PRESSURE_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    interval_seconds: float
    cpus: int
    cpu_percent: float
    cpu_percent_each: _containers.RepeatedScalarFieldContainer[float]
    load: _containers.RepeatedScalarFieldContainer[float]
    memory_bytes: int
    memory_used_bytes: int
    swap_bytes: int
    swap_used_bytes: int
    disks: _containers.RepeatedCompositeFieldContainer[DiskUsage]
    disk_read_rate: float
    disk_write_rate: float
    network_receive_rate: float
    network_send_rate: float
    processes: int
    uptime_seconds: int
    running_jobs: int
    queued_jobs: int
    jobs: _containers.RepeatedCompositeFieldContainer[JobUsage]
    cpu_pressure: float
    memory_pressure: float
    io_pressure: float
    def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., interval_seconds: _Optional[float] = ..., cpus: _Optional[int] = ..., cpu_percent: _Optional[float] = ..., cpu_percent_each: _Optional[_Iterable[float]] = ..., load: _Optional[_Iterable[float]] = ..., memory_bytes: _Optional[int] = ..., memory_used_bytes: _Optional[int] = ..., swap_bytes: _Optional[int] = ..., swap_used_bytes: _Optional[int] = ..., disks: _Optional[_Iterable[_Union[DiskUsage, _Mapping]]] = ..., disk_read_rate: _Optional[float] = ..., disk_write_rate: _Optional[float] = ..., network_receive_rate: _Optional[float] = ..., network_send_rate: _Optional[float] = ..., processes: _Optional[int] = ..., uptime_seconds: _Optional[int] = ..., running_jobs: _Optional[int] = ..., queued_jobs: _Optional[int] = ..., jobs: _Optional[_Iterable[_Union[JobUsage, _Mapping]]] = ..., cpu_pressure: _Optional[float] = ..., memory_pressure: _Optional[float] = ..., io_pressure: _Optional[float] = ...) -> None: ...

class DiskUsage(_message.Message):
    __slots__ = ("path", "size_bytes", "used_bytes")
    PATH_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    path: str
    size_bytes: int
    used_bytes: int
    def __init__(self, path: _Optional[str] = ..., size_bytes: _Optional[int] = ..., used_bytes: _Optional[int] = ...) -> None: ...

class JobUsage(_message.Message):
    __slots__ = ("name", "run_id", "attempt", "started", "usage", "cpu_percent", "throttled_percent", "io_read_rate", "io_write_rate", "memory_limit_bytes", "cpu_pressure", "memory_pressure", "io_pressure")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    CPU_PERCENT_FIELD_NUMBER: _ClassVar[int]
    THROTTLED_PERCENT_FIELD_NUMBER: _ClassVar[int]
    IO_READ_RATE_FIELD_NUMBER: _ClassVar[int]
    IO_WRITE_RATE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    CPU_PRESSURE_FIELD_NUMBER: _ClassVar[int]
    MEMORY_PRESSURE_FIELD_NUMBER: _ClassVar[int]
    IO_PRESSURE_FIELD_NUMBER: _ClassVar[int]
    name: str
    run_id: str
    attempt: int
    started: _timestamp_pb2.Timestamp
    usage: _job_pb2.Usage
    cpu_percent: float
    throttled_percent: float
    io_read_rate: float
    io_write_rate: float
    memory_limit_bytes: int
    cpu_pressure: float
    memory_pressure: float
    io_pressure: float
    def __init__(self, name: _Optional[str] = ..., run_id: _Optional[str] = ..., attempt: _Optional[int] = ..., started: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., usage: _Optional[_Union[_job_pb2.Usage, _Mapping]] = ..., cpu_percent: _Optional[float] = ..., throttled_percent: _Optional[float] = ..., io_read_rate: _Optional[float] = ..., io_write_rate: _Optional[float] = ..., memory_limit_bytes: _Optional[int] = ..., cpu_pressure: _Optional[float] = ..., memory_pressure: _Optional[float] = ..., io_pressure: _Optional[float] = ...) -> None: ...
