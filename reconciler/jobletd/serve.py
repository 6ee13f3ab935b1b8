"""``joblet serve``: puts the parts together, runs until it is told to end, and says when it is ready."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import signal
from collections.abc import Mapping

import structlog

from joblet.atomicfile import write_atomic
from joblet.clock import SystemClock
from joblet.config.server import LoadedConfig, ServerConfig, read_server_config
from joblet.config.server import config_path as path_in_use
from jobletd.api_parts import ApiParts, api_server
from jobletd.backup.keeper import BackupKeeper
from jobletd.blobs.collector import BlobCollector
from jobletd.certificate_watch import CertificateWatch
from jobletd.certs.directory import CertificateDirectory
from jobletd.control_plane import make_control_plane
from jobletd.errors import ServeError
from jobletd.executor.local import LocalExecutor
from jobletd.file_modes import check_file_modes
from jobletd.headroom import Monitor, may_accept
from jobletd.host_parts import HostParts
from jobletd.lifetime import Lifetime
from jobletd.logging_setup import open_log, set_up_logging
from jobletd.metrics.endpoint import MetricsEndpoint
from jobletd.metrics.facts import Facts
from jobletd.monitoring.profiler import Profiler
from jobletd.notify import sd_notify
from jobletd.notifying.notifier import Notifier
from jobletd.opened_state import OpenedState, open_state, take_directories
from jobletd.probing.prober import Prober
from jobletd.reloading import Adjustable, Reloader, kept_of, policy_of
from jobletd.retention import Retention
from jobletd.services.access import AccessControl
from jobletd.source_parts import SourceParts
from jobletd.sources.fleet import Fleet
from jobletd.sources.spool import Spool
from jobletd.state_facts import StateFacts
from jobletd.store import StoreError
from jobletd.tls_context import credentials_of
from jobletd.tls_front import TlsFront
from jobletd.tracing.sending import open_tracing
from jobletd.upkeep.calls import Calls
from jobletd.watchdog import more_time_to_end, watch

log = structlog.get_logger("serve")


def serve(config_path: str | None, env: Mapping[str, str]) -> int:
    """Run the daemon in the foreground. Returns its exit status, 0 if it was told to end and 1 if a part of it broke;
    raises JobletError if it cannot start."""
    loaded = read_server_config(config_path, env)
    logging = loaded.config.logging
    log_outputs = open_log(logging.output, logging.audit, env.get("JOURNAL_STREAM", ""))
    set_up_logging(level=logging.level, json_lines=logging.format == "json", stream=log_outputs)
    for warning in loaded.warnings:
        log.warning("in the configuration", warning=warning)
    if os.geteuid() != 0:
        raise ServeError("makes namespaces and cgroups", where="joblet serve", todo="run it as root")
    faulthandler.enable()  # systemd's watchdog sends SIGABRT: then it is told where we hung
    try:
        gc.collect()
        gc.disable()  # until the spool was followed: see there
        return asyncio.run(Daemon(loaded.config, config_path, env).run())
    except OSError as error:
        log.debug("cannot start", exc_info=error)
        raise ServeError(error.strerror or str(error), where=error.filename or "joblet serve") from error


class Daemon:
    """One running daemon."""

    def __init__(self, config: ServerConfig, config_path: str | None, env: Mapping[str, str]) -> None:
        self._config = config
        self._config_path = config_path
        self._env = env
        self._clock = SystemClock()
        self._life = Lifetime()
        self._hurry: asyncio.Task[None] | None = None
        self._config_file = path_in_use(config_path, env)
        self._certificates = CertificateWatch(self._clock, CertificateDirectory(self._config_file))

    async def run(self) -> int:
        """Start everything, wait for the signal, end everything in the opposite order."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_end)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)  # it never ends the daemon, not even while that starts
        async with self._life as life:
            try:
                await self._start(life)
            except BaseException:
                life.broken = True
                raise
            await life.over.wait()
            log.info("stopping", running_jobs=self._control.reconciler.running, policy=self._shutdown_policy)
            sd_notify("STOPPING=1")
        log.info("stopped")
        return 1 if life.broken else 0

    def _told_to_end(self) -> None:
        """The first time in an orderly way; told again, jobs that are being stopped lose the rest of their grace."""
        if not self._life.over.is_set():
            self._life.over.set()
        elif self._shutdown_policy == "stop" and self._hurry is None:
            log.warning("told to end again: what still runs is killed")
            self._hurry = asyncio.create_task(self._control.reconciler.hurry(), name="hurry")

    @property
    def _shutdown_policy(self) -> str:
        """What becomes of running jobs. Those who did not fail do not pay for our own fault, nor for a start that did not come
        off: the next daemon adopts them."""
        return "keep" if self._life.broken else self._config.server.on_shutdown

    async def _start(self, life: Lifetime) -> None:
        config, policy = self._config, policy_of(self._config)
        tracing = open_tracing(config.tracing, self._clock)
        if tracing is not None:
            life.push_async_callback(asyncio.to_thread, tracing.close)  # after all that it is told of
        check_file_modes(config, self._config_file)
        take_directories(life, config)
        front = self._make_front()
        state = await open_state(life, config, self._clock)
        host = HostParts.of(config, policy, self._clock, self._upkeep_calls())
        self._control = await make_control_plane(life, config, policy, self._clock, self._env, state, host, tracing)
        self._notifier = Notifier(
            self._control.registry, self._control.desired, self._control.vault, config.hooks.allowed_webhooks
        )
        await host.start(life)
        await self._control.start(life, state.put_back)
        sources = SourceParts(life, config, self._clock, self._control)
        await self._begin_work(life, state, sources)
        status_files = sources.start_status_files()
        life.callback(status_files.flush)  # after the last changes, those of the shutdown
        life.push_async_callback(self._shut_down_jobs)
        spool = sources.start_spool()
        sources.start_git()
        fleet = await sources.start_fleet()
        life.background("workflows", self._control.workflows.run())
        port = await self._start_api(life, self._api_parts(front, host.local, fleet))
        self._start_metrics(life, spool)
        life.push_async_callback(host.upkeep.close)  # before the API, which an exchange of certificates needs
        log.info(
            "ready",
            address=f"{config.server.address}:{port}",
            jobs=len(self._control.registry.views),
            cgroup=host.local.cgroup_mode,
        )
        sd_notify("READY=1")
        life.background("watchdog", watch(state.store, self._env))

    async def _begin_work(self, life: Lifetime, state: OpenedState, sources: SourceParts) -> None:
        """Of all that looks after jobs, and after the daemon's own state."""
        config, control = self._config, self._control
        registry, executor = control.registry, control.executor
        self._profiler = Profiler(registry, executor)
        await self._profiler.start()
        self._retention = Retention(state.store, executor, self._clock, kept_of(config.history))
        backups = BackupKeeper(config, self._config_file, state.launches, self._clock)
        for name, work in (
            ("profiler", self._profiler.run()),
            ("reconciler", control.reconciler.run()),
            ("resources", control.resources.run()),
            ("prober", Prober(registry, executor, control.resources, control.reconciler.nudge).run()),
            ("notifier", self._notifier.run()),
            ("retention", self._retention.run()),
            ("blobs", BlobCollector(control.blobs, registry, self._clock).run()),
            ("certificates", self._certificates.run()),
            ("backup", sources.once_followed(backups.run)),
            ("headroom", Monitor(control.headroom, registry, state.store).run()),
        ):
            life.background(name, work)
        self._facts_of_state = StateFacts(control.headroom, state.store, backups, state.put_back, self._clock)

    def _upkeep_calls(self) -> Calls:
        return Calls(self._config_file, lambda: self._config, lambda: frozenset(self._config.isolation.allowed_upkeep))

    async def _shut_down_jobs(self) -> None:
        if self._shutdown_policy != "stop":
            return
        try:
            async with more_time_to_end():
                await self._control.reconciler.stop_all()
                if self._hurry is not None:
                    await self._hurry
        except StoreError as error:  # what cannot be put on record is not done
            log.error("jobs not stopped: the next daemon finds them", error=str(error))

    def _make_front(self) -> TlsFront:
        """Raises CertificateError: before anything is made on the host."""
        config = self._config
        front = TlsFront(
            credentials_of(config.security),
            backend=config.socket_path,
            peers_directory=f"{config.run.directory}/peers",
            max_connections=config.server.max_connections,
            may_accept=may_accept,
        )
        self._certificates.take(config.security)
        return front

    def _api_parts(self, front: TlsFront, local: LocalExecutor, fleet: Fleet) -> ApiParts:
        control = self._control
        return ApiParts(
            config=self._config,
            clock=self._clock,
            front=front,
            certificates=self._certificates,
            registry=control.registry,
            desired=control.desired,
            reconciler=control.reconciler,
            executor=control.executor,
            local=local,
            blobs=control.blobs,
            git=control.git,
            fleet=fleet,
            workflows=control.workflows,
            headroom=control.headroom,
            profiler=self._profiler,
            facts_of_state=self._facts_of_state,
        )

    async def _start_api(self, life: Lifetime, parts: ApiParts) -> int:
        """Returns the port."""
        config, front = self._config, parts.front
        access = AccessControl(
            front.identity, call_seconds=config.server.timeout_seconds, traced=parts.registry.tracing is not None
        )
        adjustable = Adjustable(
            front,
            access,
            parts.reconciler,
            parts.desired,
            parts.local,
            parts.executor,
            parts.blobs,
            self._retention,
            parts.fleet,
        )
        reloader = Reloader(config, adjustable, read=self._read_config, take=self._take_config, env=self._env)
        server = api_server(
            parts,
            access,
            reload=reloader.reload,
            end=life.over.set,
            log_level=lambda: self._config.logging.level,
        )
        await server.start()
        life.push_async_callback(server.stop)
        try:
            port = await front.start(config.server.address, config.server.port)
        except (OSError, UnicodeError) as error:
            where = f"{config.server.address}:{config.server.port}"
            why = "is no host name or address" if isinstance(error, UnicodeError) else error.strerror
            todo = "choose another server.address or server.port, or end what uses it"
            raise ServeError(f"cannot listen: {why}", where=where, todo=todo) from error
        life.push_async_callback(front.close)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reloader.hang_up)
        write_atomic(config.port_path, f"{port}\n".encode(), durable=False)
        return port

    def _start_metrics(self, life: Lifetime, spool: Spool) -> None:
        """Raises MetricsError: who asked for figures and gets none would take silence for health."""
        if not self._config.metrics.enabled:
            return
        control = self._control
        facts = Facts(
            control.registry,
            control.reconciler,
            control.executor,
            conditions=self._facts_of_state.conditions,
            certificates=self._certificates.expiries,
            synced_ns=control.git.synced_ns,
            spool_files_refused=lambda: spool.files_refused,
            max_jobs=self._config.metrics.max_jobs,
        )
        endpoint = MetricsEndpoint(self._config.metrics, facts.collect)
        port = endpoint.start()
        life.push_async_callback(endpoint.stop)
        write_atomic(self._config.metrics_port_path, f"{port}\n".encode(), durable=False)

    def _read_config(self) -> LoadedConfig:
        return read_server_config(self._config_path, self._env)

    def _take_config(self, config: ServerConfig) -> None:
        self._config = config
        self._certificates.take(config.security)
        self._notifier.allowed = config.hooks.allowed_webhooks
