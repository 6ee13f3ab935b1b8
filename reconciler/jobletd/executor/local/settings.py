"""What the local executor is told by the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from jobletd.policy import NOTHING_SPECIAL, Policy


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """Directories (absolute paths) and the pool of user ids: id_slots ranges of id_count ids from id_base on.

    default_disk_bytes: of a workspace without limits.disk. memory_disk_bytes: up to this size a workspace is in memory.
    cleanup_seconds: what a job may take beyond its grace before all of it is killed. cgroup_empty_seconds: what the kernel may
    take then to empty its cgroup. cgroup_view: whether a job sees its own cgroup, read-only, at /sys/fs/cgroup.
    """

    state_directory: str
    log_directory: str
    run_directory: str
    id_base: int = 0x7000_0000  # far above what useradd gives out as subordinate ids
    id_count: int = 65536
    id_slots: int = 8192
    policy: Policy = NOTHING_SPECIAL
    default_disk_bytes: int = 512 << 20
    memory_disk_bytes: int = 64 << 20
    cleanup_seconds: float = 5.0
    cgroup_controllers: tuple[str, ...] = ("cpu", "cpuset", "memory", "pids", "io")
    cgroup_empty_seconds: float = 10.0
    cgroup_view: bool = False

    @property
    def attempts_directory(self) -> str:
        return f"{self.state_directory}/attempts"

    def attempt_directory(self, attempt_id: str) -> str:
        return f"{self.attempts_directory}/{attempt_id}"

    def work_directory(self, attempt_id: str) -> str:
        return f"{self.state_directory}/work/{attempt_id}"

    def content_path(self, sha256: str) -> str:
        """Of a content that was uploaded."""
        return f"{self.state_directory}/blobs/sha256/{sha256}"

    def log_path(self, attempt_id: str) -> str:
        """``<log>/<job>/<run>-<number>.log``; of an index of an array too: its name begins with the job's and a dot."""
        name, run, number = attempt_id.rsplit("-", 2)
        return f"{self.log_directory}/{job_of(name)}/{run}-{number}.log"


def job_of(name: str) -> str:
    """The job whose directory has the logs."""
    return name.partition(".")[0]
