"""``joblet serve``: puts the parts together, runs until it is told to end, and says when it is ready."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from joblet.atomicfile import remove_unfinished, write_atomic
from joblet.clock import SystemClock
from joblet.config.private_file import check_private
from joblet.config.server import LoadedConfig, ServerConfig, read_server_config
from joblet.config.server import config_path as path_in_use
from joblet.errors import JobletError
from jobletd import retention
from jobletd.backup.journal import LaunchJournal, read_journal
from jobletd.backup.keeper import BackupKeeper
from jobletd.backup.making import key_path
from jobletd.backup.recovery import open_store, remove_leftovers
from jobletd.backup.restoring import refuse_cut_off
from jobletd.backup.settling import PutBack, marked, settle, take_up_journal, unmark
from jobletd.blobs.collector import BlobCollector
from jobletd.blobs.store import BlobStore
from jobletd.certificate_watch import CertificateWatch
from jobletd.certs.directory import CA_KEYS, CertificateDirectory
from jobletd.desired import DesiredState
from jobletd.directory_lock import lock_path, take_lock
from jobletd.executor.local import LocalExecutor
from jobletd.executor.local.networking.controller import NetworkController
from jobletd.executor.local.networking.host_networks import HostNetworks, NetworkSettings
from jobletd.executor.local.networking.provider import NetworkProvider
from jobletd.executor.local.volumes import Volumes
from jobletd.headroom import Headroom, MemoryBound, Monitor, may_accept
from jobletd.host_features import HostFeatures, Place
from jobletd.job_bounds import JobBounds
from jobletd.logging_setup import open_log, set_up_logging
from jobletd.maintenance import Maintenance
from jobletd.metrics.endpoint import MetricsEndpoint
from jobletd.metrics.facts import Facts
from jobletd.monitoring.profiler import Profiler
from jobletd.notify import sd_notify
from jobletd.reconciler import Reconciler
from jobletd.registry import EventDraft, Registry
from jobletd.reloading import Adjustable, Reloader, blob_limits_of, local_settings_of, places_of, policy_of
from jobletd.resources import Controller, Resources
from jobletd.retention import Retention
from jobletd.secrets.controller import SecretController
from jobletd.secrets.host_key import HostKey
from jobletd.secrets.vault import Vault
from jobletd.services.access import AccessControl
from jobletd.services.files import FileService
from jobletd.services.jobs import JobService
from jobletd.services.monitor import MonitorService
from jobletd.services.node import NodeFacts, NodeService
from jobletd.services.resources import ResourceService
from jobletd.services.server import ApiServer
from jobletd.sources.git.controller import GitSources
from jobletd.sources.spool import Spool, SpoolSettings
from jobletd.sources.status_files import StatusFiles
from jobletd.state_facts import StateFacts, told_of
from jobletd.store import Store, StoreError
from jobletd.tls_context import credentials_of
from jobletd.tls_front import PEER_NAME_LENGTH, TlsFront
from jobletd.watchdog import more_time_to_end, watch

SOCKET_PATH_LENGTH = 107  # sockaddr_un.sun_path, less its final NUL
log = structlog.get_logger("serve")


class ServeError(JobletError):
    """The daemon cannot start."""


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
        for path in (key_file, CertificateDirectory(self._config_file).file(CA_KEYS)):
            check_private(path)  # of the configuration itself that was seen when it was read
        self._lock(stack)
        self._make_directories()
        front = self._make_front()
        refuse_cut_off(config.state.directory)
        remove_leftovers(config)
        store = open_store(config, self._clock)
        stack.callback(store.close)
        put_back = await self._take_up_journal(store)
        journal = LaunchJournal(self._journal_directory)
        journal.open(self._clock.wall_ns())
        stack.callback(journal.close)
        networks = HostNetworks(network_settings(config))
        volumes = Volumes(config.state.directory, config.run.directory)
        controllers: dict[str, Controller] = {"Network": NetworkController(networks), "Volume": volumes}
        executor = LocalExecutor.on_this_host(
            local_settings_of(config, self._policy),
            cgroup_base=config.cgroup.base_dir,
            clock=self._clock,
            providers=(volumes, NetworkProvider(networks)),
        )
        blobs = BlobStore(f"{config.state.directory}/blobs", blob_limits_of(config.uploads))
        blobs.open()
        registry = Registry(store, self._clock)
        await registry.load()
        directories = (config.state.directory, config.logs.directory)
        self._headroom = Headroom(directories, config.state.min_free_bytes, self._clock, memory=memory_bound)
        volumes.start(registry.resources)
        stack.callback(volumes.close)
        host_key = HostKey(key_file, self._env, anything_sealed=registry.anything_sealed)
        vault = Vault(host_key)
        controllers["Secret"] = SecretController(vault)
        git = GitSources(f"{config.state.directory}/git", registry, vault, self._clock)
        controllers["GitSource"] = git
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
        await networks.start()
        stack.push_async_callback(networks.close)
        self._background(stack, "networks", networks.guard())
        await executor.start()
        stack.push_async_callback(executor.close)
        await resources.start()
        if put_back is not None:
            lost = await settle(registry, executor)
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
        self._background(stack, "retention", Retention(store, executor, self._clock, self._kept()).run())
        self._background(stack, "blobs", BlobCollector(blobs, registry, self._clock).run())
        self._background(stack, "certificates", self._certificates.run())
        self._backups = BackupKeeper(config, self._config_file, journal, self._clock)
        self._background(stack, "backup", self._backups.run())
        self._background(stack, "headroom", Monitor(self._headroom, registry, store).run())
        self._facts_of_state = StateFacts(self._headroom, store, self._backups, put_back, self._clock)
        status_files = self._status_files(registry, desired)
        stack.callback(status_files.flush)  # after the last changes, those of the shutdown
        stack.push_async_callback(self._shut_down_jobs)
        self._start_spool(stack, desired)
        desired.on_change(git.job_changed)
        self._background(stack, "git", git.run())
        port = await self._start_api(stack, front, registry, desired, executor, blobs, git)
        self._start_metrics(stack, registry, executor, git)
        log.info(
            "ready", address=f"{config.server.address}:{port}", jobs=len(registry.views), cgroup=executor.cgroup_mode
        )
        sd_notify("READY=1")
        self._background(stack, "watchdog", watch(store, self._env))

    @property
    def _journal_directory(self) -> str:
        return f"{self._config.state.directory}/launches"

    async def _take_up_journal(self, store: Store) -> PutBack | None:
        """If the database comes from a backup: what was launched since goes on record again."""
        put_back = await store.read(marked)
        if put_back is not None:
            entries = list(read_journal(self._journal_directory, put_back.created_ns))
            now_ns = self._clock.wall_ns()
            count = await store.write(lambda connection: take_up_journal(connection, entries, now_ns))
            log.warning("launches since the backup are on record again", count=count)
        return put_back

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

    def _make_directories(self) -> None:
        config = self._config
        for path, mode in (
            (config.state.directory, 0o711),
            (config.logs.directory, 0o750),
            (f"{config.run.directory}/peers", 0o700),
        ):
            os.makedirs(path, mode, exist_ok=True)
        for directory in (config.state.directory, config.run.directory):
            remove_unfinished(directory)  # of a daemon that was killed, as is this:
        for name in os.listdir(f"{config.run.directory}/peers"):
            os.unlink(f"{config.run.directory}/peers/{name}")

    def _lock(self, stack: AsyncExitStack) -> None:
        """One daemon a root directory: before anything in it is touched."""
        directory = self._config.run.directory
        if len(f"{directory}/peers/{'x' * PEER_NAME_LENGTH}") > SOCKET_PATH_LENGTH:
            what = f"is too long for the sockets in it, which may have {SOCKET_PATH_LENGTH} characters"
            raise ServeError(what, where=directory, todo="set run.directory to a shorter path")
        os.makedirs(directory, 0o700, exist_ok=True)
        os.chmod(directory, 0o700)  # who can enter it is root to the API
        try:
            stack.callback(os.close, take_lock(directory))
        except BlockingIOError:
            where = lock_path(directory)
            raise ServeError("another daemon runs on these directories", where=where, todo="stop it first") from None

    def _kept(self) -> retention.Bounds:
        history = self._config.history
        age = history.max_age_seconds
        return retention.Bounds(
            runs=history.max_runs or None,
            age_ns=None if age is None else int(age * 10**9),
            log_bytes=history.max_log_bytes,
            events=history.max_events or None,
        )

    def _status_files(self, registry: Registry, desired: DesiredState) -> StatusFiles:
        settings = SpoolSettings(self._config.spool.directory)
        os.makedirs(settings.status_directory, 0o755, exist_ok=True)
        files = StatusFiles(settings.status_directory)
        files.keep_only(registry.views)
        for name, view in registry.views.items():
            files.changed(name, view)
        desired.on_change(files.changed)
        return files

    def _start_spool(self, stack: AsyncExitStack, desired: DesiredState) -> None:
        settings = SpoolSettings(self._config.spool.directory, rescan_seconds=self._config.spool.rescan_seconds)
        spool = Spool(settings, desired, clock=self._clock)
        desired.on_change(spool.job_changed)
        self._background(stack, "spool", spool.run())

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

    async def _start_api(
        self,
        stack: AsyncExitStack,
        front: TlsFront,
        registry: Registry,
        desired: DesiredState,
        executor: LocalExecutor,
        blobs: BlobStore,
        git: GitSources,
    ) -> int:
        config = self._config
        facts = NodeFacts(
            boot_id=executor.epoch,
            started_ns=self._clock.wall_ns(),
            cgroup_mode=executor.cgroup_mode,
            max_concurrent_jobs=config.joblet.max_concurrent_jobs,
            max_concurrent_per_source=config.joblet.max_concurrent_per_source,
        )
        access = AccessControl(front.identity, call_seconds=config.server.timeout_seconds)
        parts = Adjustable(front, access, self._reconciler, desired, executor, blobs)
        reloader = Reloader(config, parts, read=self._read_config, take=self._take_config, env=self._env)
        here = Place(config.state.directory, config.server.address, config.server.port, config.socket_path)
        node = NodeService(
            facts,
            registry,
            self._reconciler,
            Maintenance(registry, self._reconciler, self._ended.set),
            certificate_expires_ns=lambda: self._certificates.expires_ns,
            probe=lambda: HostFeatures.probe(here),
            reload=reloader.reload,
            conditions=self._facts_of_state.conditions,
        )
        jobs = JobService(desired, message_bytes=config.grpc.max_send_bytes)
        server = ApiServer(
            access,
            jobs,
            node,
            ResourceService(desired, git),
            FileService(blobs, self._headroom.check),
            MonitorService(
                registry,
                self._reconciler,
                executor,
                self._profiler,
                ("/", config.state.directory, config.logs.directory),
            ),
            config.socket_path,
            config.grpc,
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

    def _start_metrics(
        self, stack: AsyncExitStack, registry: Registry, executor: LocalExecutor, git: GitSources
    ) -> None:
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


def network_settings(config: ServerConfig) -> NetworkSettings:
    ports = (port.partition("/") for port in config.network.allow_host_ports)
    return NetworkSettings(
        state_directory=os.path.realpath(config.state.directory),
        directory=Path(config.run.directory, "networks"),
        pool=config.network.pool,
        denied=tuple(map(str, config.network.deny)),
        host_ports=tuple(f"{protocol} . {port}" for port, _, protocol in ports),
    )
