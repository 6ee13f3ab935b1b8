"""What sandbox-exec has on a node, apart from what the daemon there has: directories, ids, locks. Many run beside each other."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from joblet.config.server import ServerConfig
from joblet.errors import JobletError
from joblet.sandbox.birth import NAMESPACE_OWNERS
from jobletd.configured import local_settings_of, policy_of
from jobletd.executor.local import attempt_files
from jobletd.executor.local.settings import LocalSettings
from jobletd.executor.slurm_node.place import Place


@dataclass(frozen=True, slots=True)
class NodeSettings(LocalSettings):
    """The local executor's, for one attempt. log_directory: that attempt's place."""

    def log_path(self, attempt_id: str) -> str:  # noqa: ARG002
        return Place(self.log_directory).log.path

    def content_path(self, sha256: str) -> str:
        return f"{contents_of_attempt(self.state_directory)}/{sha256}"


def contents_of_attempt(live_directory: str) -> str:
    """Of one attempt: links to what the node has."""
    return f"{live_directory}/contents"


@dataclass(frozen=True, slots=True)
class NodeDirectories:
    """state: what is kept. run: what a reboot may take away."""

    state: str
    run: str

    @classmethod
    def of(cls, config: ServerConfig) -> NodeDirectories:
        return cls(f"{config.state.directory}/slurm", f"{config.run.directory}/slurm")

    def make(self) -> None:
        for path in (self.state, f"{self.state}/attempts", f"{self.state}/live"):
            os.makedirs(path, 0o711, exist_ok=True)
        for path in (self.run, f"{self.run}/slots"):
            os.makedirs(path, 0o700, exist_ok=True)

    def kept(self, attempt_id: str) -> Place:
        """Where it is told about an attempt that has no shared directory."""
        return Place.of(self.state, attempt_id)

    def live(self, attempt_id: str) -> str:
        """Of an attempt that runs; gone when it has ended."""
        return f"{self.state}/live/{attempt_id}"

    def attempt(self, attempt_id: str) -> str:
        """The local executor's directory of it."""
        return f"{self.live(attempt_id)}/attempts/{attempt_id}"

    def run_of(self, attempt_id: str) -> str:
        return f"{self.run}/{attempt_id}"

    @property
    def contents(self) -> str:
        """What was uploaded and has come here."""
        return f"{self.state}/contents"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While attempts come and are cleared away."""
        with locked(f"{self.state}/lock"):
            yield


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Others on this node wait."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def settings_of(
    config: ServerConfig, directories: NodeDirectories, attempt_id: str, place: Place, slot: int
) -> NodeSettings:
    """slot: which range of user ids, of those above the daemon's own."""
    local = local_settings_of(config, policy_of(config))
    given = {name: getattr(local, name) for name in LocalSettings.__dataclass_fields__}
    return replace(
        NodeSettings(**given),
        state_directory=directories.live(attempt_id),
        log_directory=place.directory,
        run_directory=directories.run_of(attempt_id),
        id_base=_first_id(local) + slot * local.id_count,
        id_slots=1,
    )


def take_slot(config: ServerConfig, directories: NodeDirectories, attempt_id: str) -> tuple[int, int]:
    """A range of user ids that no other attempt on this node has, as long as the descriptor is open: its number, that descriptor.

    Raises IdRangesExhausted."""
    local = local_settings_of(config, policy_of(config))
    count = min(local.id_slots, (NAMESPACE_OWNERS - _first_id(local)) // local.id_count)
    for slot in range(count):
        fd = os.open(f"{directories.run}/slots/{slot}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            continue
        before = os.pread(fd, 256, 0).decode(errors="replace")
        if before and attempt_files.lock_is_held(directories.attempt(before)):  # only its watcher was killed so far
            os.close(fd)
            continue
        os.ftruncate(fd, 0)
        os.pwrite(fd, attempt_id.encode(), 0)
        return slot, fd
    raise JobletError(
        f"all {count} ranges of user ids for jobs of Slurm are in use",
        where="isolation.idBase",
        todo="lower isolation.idBase or isolation.idSlots on the node",
    )


def _first_id(local: LocalSettings) -> int:
    return local.id_base + local.id_count * local.id_slots
