"""``joblet serve``: puts the parts together, runs until it is told to end, and says when it is ready."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack

import structlog

from joblet.atomicfile import write_atomic
from joblet.clock import SystemClock
from joblet.config.server import LoadedConfig, ServerConfig, read_server_config
from joblet.config.server import config_path as path_in_use
from joblet.manifest import JobManifest
from jobletd.api_parts import ApiParts, api_server
from jobletd.backup.journal import LaunchJournal
from jobletd.backup.keeper import BackupKeeper
from jobletd.backup.making import key_path
from jobletd.backup.recovery import open_store, remove_leftovers
from jobletd.backup.restoring import refuse_cut_off
from jobletd.backup.settling import settle, take_up_launches, unmark
from jobletd.blobs.collector import BlobCollector
from jobletd.blobs.store import BlobStore
from jobletd.certificate_watch import CertificateWatch
from jobletd.certs.directory import CertificateDirectory
from jobletd.configured import local_settings_of, network_settings_of
from jobletd.desired import DesiredState
from jobletd.errors import ServeError
from jobletd.executor import Executor
from jobletd.executor.engines import executor_of, volumes_of
from jobletd.executor.local import LocalExecutor
from jobletd.executor.local.networking.controller import NetworkController
from jobletd.executor.local.networking.host_networks import HostNetworks
from jobletd.executor.local.networking.provider import NetworkProvider
from jobletd.executor.local.volumes import Volumes
from jobletd.file_modes import check_file_modes
from jobletd.headroom import Headroom, MemoryBound, Monitor, may_accept
from jobletd.job_bounds import JobBounds
from jobletd.logging_setup import open_log, set_up_logging
from jobletd.metrics.endpoint import MetricsEndpoint
from jobletd.metrics.facts import Facts
from jobletd.model import JobName
from jobletd.monitoring.profiler import Profiler
from jobletd.notify import sd_notify
from jobletd.notifying.notifier import Notifier
from jobletd.own_directories import lock_directories, make_directories
from jobletd.probing.prober import Prober
from jobletd.reconciler import Reconciler
from jobletd.registry import EventDraft, Registry
from jobletd.reloading import Adjustable, Reloader, blob_limits_of, kept_of, places_of, policy_of
from jobletd.resources import Controller, Resources
from jobletd.retention import Retention
from jobletd.secrets.controller import SecretController
from jobletd.secrets.host_key import HostKey
from jobletd.secrets.vault import Vault
from jobletd.services.access import AccessControl
from jobletd.sources.fleet import Fleet
from jobletd.sources.git.contents import Contents
from jobletd.sources.git.controller import GitSources
from jobletd.sources.known_contents import KnownContents
from jobletd.sources.spool import Spool, SpoolSettings
from jobletd.sources.status_files import StatusFiles
from jobletd.state_facts import StateFacts, told_of
from jobletd.store import StoreError
from jobletd.tls_context import credentials_of
from jobletd.tls_front import TlsFront
from jobletd.tracing.sending import open_tracing
from jobletd.upkeep.calls import Calls
from jobletd.upkeep.provider import UpkeepProvider
from jobletd.watchdog import more_time_to_end, watch
from jobletd.workflows.controller import Workflows

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
        self._ended = asyncio.Event()
        self._followed = asyncio.Event()  # the spool, for the first time
        self._broken = False
        self._hurry: asyncio.Task[None] | None = None
        self._policy = policy_of(config)
        self._config_file = path_in_use(config_path, env)
        self._certificates = CertificateWatch(self._clock, CertificateDirectory(self._config_file))

    async def run(self) -> int:
        """Start everything, wait for the signal, end everything in the opposite order."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_end)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)  # it never ends the daemon, not even while that starts
        async with AsyncExitStack() as stack:
            try:
                await self._start(stack)
            except BaseException:
                self._broken = True
                raise
            await self._ended.wait()
            log.info("stopping", running_jobs=self._reconciler.running, policy=self._shutdown_policy)
            sd_notify("STOPPING=1")
        log.info("stopped")
        return 1 if self._broken else 0

    def _told_to_end(self) -> None:
        """The first time in an orderly way; told again, jobs that are being stopped lose the rest of their grace."""
        if not self._ended.is_set():
            self._ended.set()
        elif self._shutdown_policy == "stop" and self._hurry is None:
            log.warning("told to end again: what still runs is killed")
            self._hurry = asyncio.create_task(self._reconciler.hurry(), name="hurry")

    @property
    def _shutdown_policy(self) -> str:
        """What becomes of running jobs. Those who did not fail do not pay for our own fault, nor for a start that did not come
        off: the next daemon adopts them."""
        return "keep" if self._broken else self._config.server.on_shutdown

    async def _start(self, stack: AsyncExitStack) -> None:
        config = self._config
        key_file = key_path(config)
        tracing = open_tracing(config.tracing, self._clock)
        if tracing is not None:
            stack.push_async_callback(asyncio.to_thread, tracing.close)  # after all that it is told of
        check_file_modes(config, self._config_file)
        stack.callback(os.close, lock_directories(config))
        make_directories(config)
        front = self._make_front()
        refuse_cut_off(config.state.directory)
        remove_leftovers(config)
        store = open_store(config, self._clock)
        stack.callback(store.close)
        launches = f"{config.state.directory}/launches"
        put_back = await take_up_launches(store, launches, self._clock.wall_ns())
        journal = LaunchJournal(launches)
        journal.open(self._clock.wall_ns())
        stack.callback(journal.close)
        networks = HostNetworks(network_settings_of(config))
        volumes = Volumes(config.state.directory, config.run.directory)
        controllers: dict[str, Controller] = {
            "Network": NetworkController(networks),
            "Volume": volumes_of(config, volumes),
        }
        upkeep = UpkeepProvider(f"{config.run.directory}/upkeep", self._upkeep_calls())
        local = LocalExecutor.on_this_host(
            local_settings_of(config, self._policy),
            cgroup_base=config.cgroup.base_dir,
            clock=self._clock,
            providers=(volumes, NetworkProvider(networks), upkeep),
        )
        executor = executor_of(config, local, self._policy, self._clock)
        blobs = BlobStore(f"{config.state.directory}/blobs", blob_limits_of(config.uploads))
        blobs.open()
        registry = Registry(store, self._clock)
        await registry.load()
        if tracing is not None:
            registry.tracing = tracing.tracing
            await registry.tracing.load(store)
        directories = (config.state.directory, config.logs.directory)
        self._headroom = Headroom(directories, config.state.min_free_bytes, self._clock, memory=memory_bound)
        volumes.start(registry.resources)
        stack.callback(volumes.close)
        host_key = HostKey(key_file, self._env, anything_sealed=registry.anything_sealed)
        vault = Vault(host_key)
        controllers["Secret"] = SecretController(vault)
        git = GitSources(
            f"{config.state.directory}/git",
            registry,
            vault,
            lambda: Contents(blobs, self._headroom.check),
            self._clock,
        )
        controllers["GitSource"] = git
        workflows = Workflows(registry)
        controllers["Workflow"] = workflows
        resources = Resources(registry, controllers, vault)
        self._reconciler = Reconciler(
            registry,
            executor,
            resources,
            bounds=places_of(config.joblet),
            job_bounds=JobBounds.of(config.joblet),
            journal=journal,
            room=self._headroom.why,
        )
        desired = DesiredState(
            registry, executor, self._reconciler.nudge, resources, blobs, self._policy, self._headroom.check
        )
        git.begin(desired, resources.look_at)
        await workflows.begin(desired, resources.look_at, self._reconciler.look)
        self._notifier = Notifier(registry, desired, vault, config.hooks.allowed_webhooks)
        await networks.start()
        stack.push_async_callback(networks.close)
        self._background(stack, "networks", networks.guard())
        await executor.start()
        stack.push_async_callback(executor.close)
        await resources.start()
        if put_back is not None:
            lost = await settle(registry, executor)
            await workflows.pass_over_ticks()
            await unmark(store)
            log.warning("the state of a backup is in line with the host", origin=put_back.origin, outcomes_lost=lost)
            await registry.record(EventDraft("", "", "Warning", "PutBack", told_of(put_back)))
        await self._reconciler.start()
        stack.callback(self._reconciler.close)
        self._profiler = Profiler(registry, executor)
        await self._profiler.start()
        self._background(stack, "profiler", self._profiler.run())
        self._background(stack, "reconciler", self._reconciler.run())
        self._background(stack, "resources", resources.run())
        prober = Prober(registry, executor, resources, self._reconciler.nudge)
        self._background(stack, "prober", prober.run())
        self._background(stack, "notifier", self._notifier.run())
        self._retention = Retention(store, executor, self._clock, kept_of(config.history))
        self._background(stack, "retention", self._retention.run())
        self._background(stack, "blobs", BlobCollector(blobs, registry, self._clock).run())
        self._background(stack, "certificates", self._certificates.run())
        self._backups = BackupKeeper(config, self._config_file, journal, self._clock)
        self._background(stack, "backup", self._once_followed(self._backups.run))
        self._background(stack, "headroom", Monitor(self._headroom, registry, store).run())
        self._facts_of_state = StateFacts(self._headroom, store, self._backups, put_back, self._clock)
        status_files = self._status_files(stack, registry, desired)
        stack.callback(status_files.flush)  # after the last changes, those of the shutdown
        stack.push_async_callback(self._shut_down_jobs)
        self._start_spool(stack, registry, desired)
        desired.on_change(git.job_changed)
        self._background(stack, "git", git.run())
        fleet = await self._start_fleet(stack, git, desired)
        self._background(stack, "workflows", workflows.run())
        parts = ApiParts(
            config=config,
            clock=self._clock,
            front=front,
            certificates=self._certificates,
            registry=registry,
            desired=desired,
            reconciler=self._reconciler,
            executor=executor,
            local=local,
            blobs=blobs,
            git=git,
            fleet=fleet,
            workflows=workflows,
            headroom=self._headroom,
            profiler=self._profiler,
            facts_of_state=self._facts_of_state,
        )
        port = await self._start_api(stack, parts)
        self._start_metrics(stack, registry, executor, git)
        stack.push_async_callback(upkeep.close)  # before the API, which an exchange of certificates needs
        log.info("ready", address=f"{config.server.address}:{port}", jobs=len(registry.views), cgroup=local.cgroup_mode)
        sd_notify("READY=1")
        self._background(stack, "watchdog", watch(store, self._env))

    def _upkeep_calls(self) -> Calls:
        return Calls(self._config_file, lambda: self._config, lambda: frozenset(self._config.isolation.allowed_upkeep))

    async def _shut_down_jobs(self) -> None:
        if self._shutdown_policy != "stop":
            return
        try:
            async with more_time_to_end():
                await self._reconciler.stop_all()
                if self._hurry is not None:
                    await self._hurry
        except StoreError as error:  # what cannot be put on record is not done
            log.error("jobs not stopped: the next daemon finds them", error=str(error))

    def _status_files(self, stack: AsyncExitStack, registry: Registry, desired: DesiredState) -> StatusFiles:
        settings = SpoolSettings(self._config.spool.directory)
        os.makedirs(settings.status_directory, 0o755, exist_ok=True)
        files = StatusFiles(settings.status_directory)
        files.keep_only(registry.views)
        desired.on_change(files.changed)

        async def look_at_all() -> None:
            for name, view in registry.views.items():
                files.changed(name, view)

        self._background(stack, "first status files", self._once_followed(look_at_all))
        return files

    async def _once_followed(self, work: Callable[[], Awaitable[None]]) -> None:
        """What can wait until the spool was looked at for the first time, and would only make that take longer."""
        await self._followed.wait()
        await work()

    def _start_spool(self, stack: AsyncExitStack, registry: Registry, desired: DesiredState) -> None:
        settings = SpoolSettings(self._config.spool.directory, rescan_seconds=self._config.spool.rescan_seconds)

        def present(name: JobName) -> JobManifest | None:
            view = registry.views.get(name)
            return None if view is None else view.manifest

        def followed() -> None:
            # All jobs are there now, and stay: to go through them again and again for garbage takes as long as to load them.
            gc.freeze()
            gc.enable()
            self._followed.set()

        known = KnownContents(f"{self._config.state.directory}/spool-contents.json", present)
        spool = Spool(settings, desired, clock=self._clock, known=known, on_followed=followed)
        desired.on_change(spool.job_changed)
        self._background(stack, "spool", spool.run())

    async def _start_fleet(self, stack: AsyncExitStack, git: GitSources, desired: DesiredState) -> Fleet:
        fleet = Fleet(self._config, git, desired)
        desired.on_change(fleet.configured.job_changed)
        self._background(stack, "configured sources", fleet.configured.run())
        port = await fleet.start()
        stack.push_async_callback(fleet.stop)
        if port is not None:
            write_atomic(f"{self._config.run.directory}/webhook-port", f"{port}\n".encode(), durable=False)
        return fleet

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

    async def _start_api(self, stack: AsyncExitStack, parts: ApiParts) -> int:
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
            end=self._ended.set,
            log_level=lambda: self._config.logging.level,
        )
        await server.start()
        stack.push_async_callback(server.stop)
        try:
            port = await front.start(config.server.address, config.server.port)
        except (OSError, UnicodeError) as error:
            where = f"{config.server.address}:{config.server.port}"
            why = "is no host name or address" if isinstance(error, UnicodeError) else error.strerror
            todo = "choose another server.address or server.port, or end what uses it"
            raise ServeError(f"cannot listen: {why}", where=where, todo=todo) from error
        stack.push_async_callback(front.close)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reloader.hang_up)
        write_atomic(config.port_path, f"{port}\n".encode(), durable=False)
        return port

    def _start_metrics(self, stack: AsyncExitStack, registry: Registry, executor: Executor, git: GitSources) -> None:
        """Raises MetricsError: who asked for figures and gets none would take silence for health."""
        if not self._config.metrics.enabled:
            return
        facts = Facts(
            registry,
            self._reconciler,
            executor,
            conditions=self._facts_of_state.conditions,
            certificates=self._certificates.expiries,
            synced_ns=git.synced_ns,
            max_jobs=self._config.metrics.max_jobs,
        )
        endpoint = MetricsEndpoint(self._config.metrics, facts.collect)
        port = endpoint.start()
        stack.push_async_callback(endpoint.stop)
        write_atomic(self._config.metrics_port_path, f"{port}\n".encode(), durable=False)

    def _read_config(self) -> LoadedConfig:
        return read_server_config(self._config_path, self._env)

    def _take_config(self, config: ServerConfig) -> None:
        self._config = config
        self._certificates.take(config.security)
        self._notifier.allowed = config.hooks.allowed_webhooks

    def _background(self, stack: AsyncExitStack, name: str, coroutine: object) -> None:
        """A part that runs until the end; if it breaks, the daemon ends with status 1, and systemd starts a new one."""
        assert asyncio.iscoroutine(coroutine)
        task: asyncio.Task[None] = asyncio.create_task(coroutine, name=name)

        def done(finished: asyncio.Task[None]) -> None:
            if not finished.cancelled() and (error := finished.exception()) is not None:
                log.error("a part of the daemon broke", part=name, exc_info=error)
                self._broken = True
                self._ended.set()

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        task.add_done_callback(done)
        stack.push_async_callback(end)


def memory_bound() -> MemoryBound | None:
    bound = LocalExecutor.own_memory()
    return None if bound is None else MemoryBound(bound.used_bytes, bound.limit_bytes, bound.where)
