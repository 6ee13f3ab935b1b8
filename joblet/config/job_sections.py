"""The sections about jobs: bounds on all of them, what they may ask for, and what they are made with."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Literal

from joblet.config.section import Reload, Section, key
from joblet.config.values import (
    CONTROLLERS,
    AbsolutePath,
    Capability,
    Controller,
    HostPort,
    IoRate,
    NetworkAddress,
    Pool,
    Seconds,
    SecondsOrNone,
    Size,
    WebhookPrefix,
)

AT_ONCE = Reload.AT_ONCE


class JobletSection(Section):
    """Bounds on all jobs, and limits of those that name none. They count from a job's next attempt on."""

    default_cpu_percent: int = key(
        0,
        "defaultCpuLimit",
        "CPU of a job without `limits.cpu`, in percent of one core; 0: unlimited.",
        reload=AT_ONCE,
        ge=0,
        le=819_200,
    )
    default_memory_mb: int = key(
        0,
        "defaultMemoryLimit",
        "Memory of a job without `limits.memory`, in MiB; 0: unlimited.",
        reload=AT_ONCE,
        ge=0,
        le=1 << 40,
    )
    default_io_bytes: IoRate = key(
        0,
        "defaultIoLimit",
        "Bytes read, and bytes written, a second of a job without `limits.io`; 0: unlimited.",
        reload=AT_ONCE,
    )
    max_concurrent_jobs: int = key(
        0, "maxConcurrentJobs", "Jobs that run at a time, the others wait; 0: no bound.", reload=AT_ONCE, ge=0
    )
    max_concurrent_per_source: int = key(
        0,
        "maxConcurrentPerSource",
        "Jobs of one source (the spool, a repository, a client) that run at a time; 0: no bound.",
        reload=AT_ONCE,
        ge=0,
    )
    job_timeout_seconds: SecondsOrNone = key(
        0.0,
        "jobTimeout",
        "The longest that a run may take, whatever its manifest says; services (`restart: Always`) are exempt. 0: no bound.",
        reload=AT_ONCE,
    )
    cleanup_timeout_seconds: Seconds = key(
        5.0,
        "cleanupTimeout",
        "How long a job that has used up its grace may take to be gone before all of it is killed.",
        reload=AT_ONCE,
    )
    validate_commands: bool = key(
        False,
        "validateCommands",
        "Refuse a manifest whose command is not on this host.",
        reload=AT_ONCE,
        strict=True,
    )


class CgroupSection(Section):
    """Where jobs' cgroups lie and what they limit."""

    base_dir: AbsolutePath = key(
        "/sys/fs/cgroup/joblet.slice/joblet.service",
        "baseDir",
        "A path of the unified hierarchy; v1 has the same below each controller.",
    )
    namespace_mount: Literal["", "/sys/fs/cgroup"] = key(
        "",
        "namespaceMount",
        "Where a job sees its own cgroup, read-only: `/sys/fs/cgroup`, where runtimes look for their limits; empty: nowhere.",
        reload=AT_ONCE,
    )
    enable_controllers: tuple[Controller, ...] = key(
        CONTROLLERS, "enableControllers", "What jobs are limited by; a limit that needs another one is refused."
    )
    cleanup_timeout_seconds: Seconds = key(
        10.0, "cleanupTimeout", "How long the kernel may take to empty a job's cgroup once all in it was killed."
    )


class IsolationSection(Section):
    """What manifests may ask for, nothing unless it stands here; and what every job gets."""

    id_base: int = key(0x7000_0000, "idBase", "First host user id for jobs.", ge=65536, le=0xFFFF_0000 - 65536 * 16384)
    id_slots: int = key(8192, "idSlots", "How many ranges of 65,536 ids follow it: one a job.", ge=1, le=16384)
    allowed_capabilities: tuple[Capability, ...] = key(
        (), "allowedCapabilities", "Capabilities that manifests may ask for.", reload=AT_ONCE
    )
    allow_host_network: bool = key(
        False, "allowHostNetwork", "Whether manifests may ask for `network: host`.", reload=AT_ONCE, strict=True
    )
    allow_unconfined: bool = key(
        False, "allowUnconfined", "Whether manifests may ask for `seccomp: unconfined`.", reload=AT_ONCE, strict=True
    )
    allowed_upkeep: tuple[Literal["backup", "rotate", "report"], ...] = key(
        (), "allowedUpkeep", "What jobs may ask the daemon to do: `backup`, `rotate`, `report`.", reload=AT_ONCE
    )
    seccomp_profiles: AbsolutePath | None = key(
        None, "seccompProfiles", "The directory below which seccomp profiles may lie.", reload=AT_ONCE
    )
    rootfs_images: AbsolutePath | None = key(
        None, "rootfsImages", "The directory below which root file systems may lie.", reload=AT_ONCE
    )
    default_disk_bytes: Size = key(
        512 << 20, "defaultDisk", "Size of a workspace without `limits.disk`, in memory.", reload=AT_ONCE
    )
    memory_disk_bytes: Size = key(
        64 << 20, "memoryDisk", "Up to this size a workspace with `limits.disk` is in memory too.", reload=AT_ONCE
    )


class UploadsSection(Section):
    """Contents that clients send for jobs."""

    max_file_bytes: Size = key(1 << 30, "maxFileBytes", "The most of one.", reload=AT_ONCE)
    max_total_bytes: Size = key(10 << 30, "maxTotalBytes", "The most of all together.", reload=AT_ONCE)


class NetworkSection(Section):
    """Networks of jobs."""

    pool: Pool = key(
        IPv4Network("10.213.0.0/16"), "pool", "What bridge and isolated networks take addresses from, half each."
    )
    deny: tuple[NetworkAddress, ...] = key(
        (IPv4Network("169.254.0.0/16"),), "deny", "What no job on a network of its own reaches."
    )
    allow_host_ports: tuple[HostPort, ...] = key(
        (), "allowHostPorts", "Ports of the host that such jobs reach: `8080` (TCP) or `53/udp`."
    )


class HooksSection(Section):
    """Whom jobs may tell how they end."""

    allowed_webhooks: tuple[WebhookPrefix, ...] = key(
        (),
        "allowedWebhooks",
        "URLs, with all below their paths, that `spec.notify.webhook` may name; nothing unless it stands here.",
        reload=AT_ONCE,
    )


class HistorySection(Section):
    """What is kept of ended runs on the whole host, beyond what each job's `spec.history` says."""

    max_runs: int = key(100_000, "maxRuns", "Ended runs; 0: no bound.", reload=AT_ONCE, ge=0)
    max_age_seconds: Seconds | None = key(None, "maxAge", "Age of an ended run. Without: no bound.", reload=AT_ONCE)
    max_log_bytes: Size = key(10 << 30, "maxLogBytes", "Output of ended runs.", reload=AT_ONCE)
    max_events: int = key(500_000, "maxEvents", "Events; 0: no bound.", reload=AT_ONCE, ge=0)
