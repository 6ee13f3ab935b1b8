"""Applies a changed configuration to the running daemon: all that can count at once does, or nothing changes.

What can fail (reading, certificates, the log's file) is done first, then everything is put into force by assignments. Keys that
need a restart keep their old values, and are named.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from joblet.config.changes import Changes, compare
from joblet.config.job_sections import JobletSection, UploadsSection
from joblet.config.server import LoadedConfig, ServerConfig
from joblet.errors import JobletError
from joblet.pki import Role
from jobletd.blobs.store import BlobLimits, BlobStore
from jobletd.desired import DesiredState
from jobletd.executor.local import LocalExecutor, LocalSettings
from jobletd.job_bounds import JobBounds
from jobletd.logging_setup import open_log, set_up_logging
from jobletd.notify import sd_notify
from jobletd.places import Bounds
from jobletd.policy import Policy
from jobletd.reconciler import Reconciler
from jobletd.services.access import AccessControl
from jobletd.tls_context import Revocations, credentials_of, server_context
from jobletd.tls_front import Identity, TlsFront

HANGUP = Identity("root", Role.ADMIN, "SIGHUP")
log = structlog.get_logger("reload")
audit = structlog.get_logger("audit")


@dataclass(frozen=True, slots=True)
class Adjustable:
    """The parts that a reload changes."""

    front: TlsFront
    access: AccessControl
    reconciler: Reconciler
    desired: DesiredState
    executor: LocalExecutor
    blobs: BlobStore


class Reloader:
    """One for the daemon. read: the configuration as it is now. take: told of what is in force afterwards."""

    def __init__(
        self,
        config: ServerConfig,
        parts: Adjustable,
        *,
        read: Callable[[], LoadedConfig],
        take: Callable[[ServerConfig], None],
        env: Mapping[str, str],
    ) -> None:
        self._config = config
        self._parts = parts
        self._read = read
        self._take = take
        self._journal_stream = env.get("JOURNAL_STREAM", "")

    def hang_up(self) -> None:
        """SIGHUP: nobody waits for an answer but the log, and systemd."""
        try:
            self.reload(HANGUP)
        except (JobletError, OSError) as error:
            log.debug("nothing changed", error=str(error))  # said at its level by ``reload``

    def reload(self, by: Identity) -> Changes:
        """Put the configuration as it is now into force. Raises JobletError, and changes nothing then."""
        sd_notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        who = {"client": by.name, "role": by.role, "peer": by.address}
        try:
            loaded = self._read()
            changes = self._apply(loaded)
        except (JobletError, OSError) as error:
            audit.error("reload refused, the old configuration stays", **who, error=str(error))
            raise
        finally:
            sd_notify("READY=1")
        for warning in loaded.warnings:
            log.warning("in the configuration", warning=warning)
        if changes.restart:
            log.warning("some changes need a restart", keys=", ".join(changes.restart))
        audit.info(
            "reload", **who, at_once=", ".join(changes.at_once) or "none", restart=", ".join(changes.restart) or "none"
        )
        return changes

    def _apply(self, loaded: LoadedConfig) -> Changes:
        """Raises JobletError before anything has changed."""
        changes = compare(self._config, loaded.config)
        config, parts = changes.in_force, self._parts
        credentials = credentials_of(config.security)
        context, revocations = server_context(credentials), Revocations.of(credentials.crl)
        stream = open_log(config.logging.output, config.logging.audit, self._journal_stream)

        set_up_logging(level=config.logging.level, json_lines=config.logging.format == "json", stream=stream)
        parts.front.replace(context, revocations, config.server.max_connections)
        parts.access.call_seconds = config.server.timeout_seconds
        policy = policy_of(config)
        parts.desired.reconfigure(policy)
        parts.executor.reconfigure(local_settings_of(config, policy))
        parts.blobs.reconfigure(blob_limits_of(config.uploads))
        parts.reconciler.reconfigure(bounds=places_of(config.joblet), job_bounds=JobBounds.of(config.joblet))
        self._config = config
        self._take(config)
        return changes


def policy_of(config: ServerConfig) -> Policy:
    return Policy.of(config.isolation, validate_commands=config.joblet.validate_commands)


def places_of(joblet: JobletSection) -> Bounds:
    return Bounds(joblet.max_concurrent_jobs, joblet.max_concurrent_per_source)


def blob_limits_of(uploads: UploadsSection) -> BlobLimits:
    return BlobLimits(uploads.max_file_bytes, uploads.max_total_bytes)


def local_settings_of(config: ServerConfig, policy: Policy) -> LocalSettings:
    return LocalSettings(
        state_directory=config.state.directory,
        log_directory=config.logs.directory,
        run_directory=config.run.directory,
        id_base=config.isolation.id_base,
        id_slots=config.isolation.id_slots,
        policy=policy,
        default_disk_bytes=config.isolation.default_disk_bytes,
        memory_disk_bytes=config.isolation.memory_disk_bytes,
        cleanup_seconds=config.joblet.cleanup_timeout_seconds,
        cgroup_controllers=config.cgroup.enable_controllers,
        cgroup_empty_seconds=config.cgroup.cleanup_timeout_seconds,
    )
