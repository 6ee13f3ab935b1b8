import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from joblet.api.v1 import job_pb2 as _job_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetNodeRequest(_message.Message):
    __slots__ = ("engine_nodes",)
    ENGINE_NODES_FIELD_NUMBER: _ClassVar[int]
    engine_nodes: bool
    def __init__(self, engine_nodes: _Optional[bool] = ...) -> None: ...

class ReloadRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReloadResponse(_message.Message):
    __slots__ = ("at_once", "restart")
    AT_ONCE_FIELD_NUMBER: _ClassVar[int]
    RESTART_FIELD_NUMBER: _ClassVar[int]
    at_once: _containers.RepeatedScalarFieldContainer[str]
    restart: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, at_once: _Optional[_Iterable[str]] = ..., restart: _Optional[_Iterable[str]] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("hostname", "version", "kernel", "architecture", "boot_id", "started", "cpus", "memory_bytes", "memory_available_bytes", "cgroup_mode", "features", "max_concurrent_jobs", "running_jobs", "queued_jobs", "certificate_expires", "conditions", "cordon", "max_concurrent_per_source", "labels", "executors", "engine_nodes")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    KERNEL_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_AVAILABLE_BYTES_FIELD_NUMBER: _ClassVar[int]
    CGROUP_MODE_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    MAX_CONCURRENT_JOBS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_JOBS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_JOBS_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_EXPIRES_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    CORDON_FIELD_NUMBER: _ClassVar[int]
    MAX_CONCURRENT_PER_SOURCE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    EXECUTORS_FIELD_NUMBER: _ClassVar[int]
    ENGINE_NODES_FIELD_NUMBER: _ClassVar[int]
    hostname: str
    version: str
    kernel: str
    architecture: str
    boot_id: str
    started: _timestamp_pb2.Timestamp
    cpus: int
    memory_bytes: int
    memory_available_bytes: int
    cgroup_mode: str
    features: _containers.RepeatedCompositeFieldContainer[Feature]
    max_concurrent_jobs: int
    running_jobs: int
    queued_jobs: int
    certificate_expires: _timestamp_pb2.Timestamp
    conditions: _containers.RepeatedCompositeFieldContainer[_job_pb2.Condition]
    cordon: CordonState
    max_concurrent_per_source: int
    labels: _containers.ScalarMap[str, str]
    executors: _containers.RepeatedCompositeFieldContainer[ExecutorState]
    engine_nodes: _containers.RepeatedCompositeFieldContainer[EngineNode]
    def __init__(self, hostname: _Optional[str] = ..., version: _Optional[str] = ..., kernel: _Optional[str] = ..., architecture: _Optional[str] = ..., boot_id: _Optional[str] = ..., started: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., cpus: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., memory_available_bytes: _Optional[int] = ..., cgroup_mode: _Optional[str] = ..., features: _Optional[_Iterable[_Union[Feature, _Mapping]]] = ..., max_concurrent_jobs: _Optional[int] = ..., running_jobs: _Optional[int] = ..., queued_jobs: _Optional[int] = ..., certificate_expires: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., conditions: _Optional[_Iterable[_Union[_job_pb2.Condition, _Mapping]]] = ..., cordon: _Optional[_Union[CordonState, _Mapping]] = ..., max_concurrent_per_source: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., executors: _Optional[_Iterable[_Union[ExecutorState, _Mapping]]] = ..., engine_nodes: _Optional[_Iterable[_Union[EngineNode, _Mapping]]] = ...) -> None: ...

class ExecutorState(_message.Message):
    __slots__ = ("name", "available", "reason", "pending", "running")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PENDING_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    name: str
    available: bool
    reason: str
    pending: int
    running: int
    def __init__(self, name: _Optional[str] = ..., available: _Optional[bool] = ..., reason: _Optional[str] = ..., pending: _Optional[int] = ..., running: _Optional[int] = ...) -> None: ...

class EngineNode(_message.Message):
    __slots__ = ("engine", "name", "state", "reason", "partitions", "cpus", "cpus_used", "load", "memory_bytes", "memory_used_bytes")
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    CPUS_FIELD_NUMBER: _ClassVar[int]
    CPUS_USED_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    engine: str
    name: str
    state: str
    reason: str
    partitions: _containers.RepeatedScalarFieldContainer[str]
    cpus: int
    cpus_used: int
    load: float
    memory_bytes: int
    memory_used_bytes: int
    def __init__(self, engine: _Optional[str] = ..., name: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., partitions: _Optional[_Iterable[str]] = ..., cpus: _Optional[int] = ..., cpus_used: _Optional[int] = ..., load: _Optional[float] = ..., memory_bytes: _Optional[int] = ..., memory_used_bytes: _Optional[int] = ...) -> None: ...

class CordonState(_message.Message):
    __slots__ = ("since", "by", "reason")
    SINCE_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    since: _timestamp_pb2.Timestamp
    by: str
    reason: str
    def __init__(self, since: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., by: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class CordonRequest(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class CordonResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UncordonRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UncordonResponse(_message.Message):
    __slots__ = ("changed",)
    CHANGED_FIELD_NUMBER: _ClassVar[int]
    changed: bool
    def __init__(self, changed: _Optional[bool] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("reason", "stay")
    REASON_FIELD_NUMBER: _ClassVar[int]
    STAY_FIELD_NUMBER: _ClassVar[int]
    reason: str
    stay: bool
    def __init__(self, reason: _Optional[str] = ..., stay: _Optional[bool] = ...) -> None: ...

class DrainProgress(_message.Message):
    __slots__ = ("running", "queued", "jobs", "stopping_services", "done")
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    STOPPING_SERVICES_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    running: int
    queued: int
    jobs: _containers.RepeatedScalarFieldContainer[str]
    stopping_services: bool
    done: bool
    def __init__(self, running: _Optional[int] = ..., queued: _Optional[int] = ..., jobs: _Optional[_Iterable[str]] = ..., stopping_services: _Optional[bool] = ..., done: _Optional[bool] = ...) -> None: ...

class Feature(_message.Message):
    __slots__ = ("name", "available", "detail")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    name: str
    available: bool
    detail: str
    def __init__(self, name: _Optional[str] = ..., available: _Optional[bool] = ..., detail: _Optional[str] = ...) -> None: ...
