"""Applies a changed configuration to the running daemon: all that can count at once does, or nothing changes.

What can fail (reading, certificates, the log's file) is done first, then everything is put into force by assignments. Keys that
need a restart keep their old values, and are named.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import structlog

from joblet.config.changes import Changes, compare
from joblet.config.job_sections import HistorySection, JobletSection, UploadsSection
from joblet.config.server import LoadedConfig, ServerConfig
from joblet.crash_points import reached
from joblet.errors import JobletError
from joblet.pki import Role
from jobletd import configured, retention
from jobletd.blobs.store import BlobLimits, BlobStore
from jobletd.configured import local_settings_of
from jobletd.desired import DesiredState
from jobletd.executor import Executor
from jobletd.executor.engines import EngineRules, take_policy
from jobletd.executor.local import LocalExecutor
from jobletd.job_bounds import JobBounds
from jobletd.logging_setup import open_log, set_up_logging
from jobletd.notify import sd_notify
from jobletd.places import Bounds
from jobletd.policy import Policy
from jobletd.reconciler import Reconciler
from jobletd.services.access import AccessControl
from jobletd.sources.fleet import Fleet
from jobletd.tls_context import Revocations, credentials_of, server_context
from jobletd.tls_front import Identity, TlsFront

HANGUP = Identity("root", Role.ADMIN, "SIGHUP")
log = structlog.get_logger("reload")
audit = structlog.get_logger("audit")


@dataclass(frozen=True, slots=True)
class Adjustable:
    """The parts that a reload changes. executors: all of them as one."""

    front: TlsFront
    access: AccessControl
    reconciler: Reconciler
    desired: DesiredState
    executor: LocalExecutor
    executors: Executor
    blobs: BlobStore
    retention: retention.Retention
    fleet: Fleet


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
        parts.fleet.check(config)
        stream = open_log(config.logging.output, config.logging.audit, self._journal_stream)

        reached("reload.read")
        set_up_logging(level=config.logging.level, json_lines=config.logging.format == "json", stream=stream)
        parts.front.replace(context, revocations, config.server.max_connections)
        parts.access.call_seconds = config.server.timeout_seconds
        policy = policy_of(config)
        parts.desired.reconfigure(policy)
        parts.executor.reconfigure(local_settings_of(config, policy))
        take_policy(parts.executors, policy)
        parts.blobs.reconfigure(blob_limits_of(config.uploads))
        parts.retention.reconfigure(kept_of(config.history))
        parts.reconciler.reconfigure(bounds=places_of(config.joblet), job_bounds=JobBounds.of(config.joblet))
        parts.fleet.reconfigure(config)
        self._config = config
        self._take(config)
        reached("reload.in-force")
        return changes


def policy_of(config: ServerConfig) -> Policy:
    """As everywhere, and what a job may not ask of the engine that this daemon hands it to."""
    return replace(configured.policy_of(config), engines=EngineRules(config))


def places_of(joblet: JobletSection) -> Bounds:
    return Bounds(joblet.max_concurrent_jobs, joblet.max_concurrent_per_source)


def kept_of(history: HistorySection) -> retention.Bounds:
    age = history.max_age_seconds
    return retention.Bounds(
        runs=history.max_runs or None,
        age_ns=None if age is None else int(age * 10**9),
        log_bytes=history.max_log_bytes,
        events=history.max_events or None,
    )


def blob_limits_of(uploads: UploadsSection) -> BlobLimits:
    return BlobLimits(uploads.max_file_bytes, uploads.max_total_bytes)
