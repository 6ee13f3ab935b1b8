"""One attempt inside Slurm's allocation, from its claim to its end on record: what ``joblet sandbox-exec`` does."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace

from joblet.cgroup import open_nested, remove_nested
from joblet.clock import SystemClock
from joblet.config.server import ServerConfig
from joblet.errors import JobletError
from joblet.sandbox import exit_record
from jobletd.executor import AttemptRequest, Ended, Running
from jobletd.executor.local import LocalExecutor, attempt_files
from jobletd.executor.slurm_node import sealed_secrets
from jobletd.executor.slurm_node.contents import NodeContents
from jobletd.executor.slurm_node.directories import NodeDirectories, contents_of_attempt, settings_of, take_slot
from jobletd.executor.slurm_node.kept import trim
from jobletd.executor.slurm_node.noting import UsageNotes
from jobletd.executor.slurm_node.place import EXIT, STATE, Place
from jobletd.executor.slurm_node.probing import answer_probes
from jobletd.executor.slurm_node.records import exit_document, state_document
from jobletd.executor.slurm_node.request import Allocation, SandboxRequest, check
from jobletd.executor.slurm_node.sweeping import EMPTY_WITHIN_SECONDS, Owner, owned, remove_directories, sweep
from jobletd.executor.slurm_node.volumes import SharedVolumes, give_all_back, names_of
from jobletd.model import AttemptId, End, Exited, Killed, NotStarted, Reason

MUST_NOT_RUN = 75  # somebody has claimed it
COULD_NOT_START = 70
UNKNOWN = 70
_STOP, _KILL = signal.SIGTERM, signal.SIGUSR1


class SandboxExec:
    """For one request."""

    def __init__(self, request: SandboxRequest, allocation: Allocation, config: ServerConfig) -> None:
        self._request = request
        self._allocation = allocation
        self._config = config
        self._directories = NodeDirectories.of(config)
        self._place = Place.of(request.shared_directory or self._directories.state, request.attempt_id)
        self._changed = asyncio.Event()
        self._runs = asyncio.Event()
        self._told: signal.Signals | None = None

    async def run(self) -> int:
        """The status to exit with. Raises JobletError, OSError if not even the claim can be made."""
        loop = asyncio.get_running_loop()
        for number in (_STOP, _KILL):
            loop.add_signal_handler(number, self._take_signal, number)
        self._directories.make()
        sweep(self._directories)
        attempt_id = self._request.attempt_id
        claimant = {"attempt_id": attempt_id, **asdict(self._allocation), "boot_id": exit_record.boot_id()}
        if not self._place.claim(claimant):
            return MUST_NOT_RUN
        try:
            ended = await self._run_claimed()
        except (JobletError, OSError) as error:
            ended = self._not_started(str(error))
            self._record(ended, in_live=False)
        if self._request.shared_directory is None:
            trim(self._directories)
        return status_of(ended.end)

    async def _run_claimed(self) -> Ended:
        """Raises JobletError, OSError before the launch; then there is an end in every case."""
        attempt_id = self._request.attempt_id
        shared = self._request.shared_directory
        names = names_of(self._request.attempt.manifest)
        check(self._request.attempt.manifest, shared)
        hierarchy = open_nested(attempt_id, frozenset(self._config.cgroup.enable_controllers))
        owner = Owner(
            attempt_id,
            self._place.directory,
            **asdict(self._allocation),
            boot_id=exit_record.boot_id(),
            remains=tuple(hierarchy.remains(attempt_id)),
            volumes=names,
        )
        with ExitStack() as stack:
            stack.enter_context(owned(self._directories, owner))
            slot, slot_fd = take_slot(self._config, self._directories, attempt_id)
            stack.callback(os.close, slot_fd)
            os.mkdir(self._directories.run_of(attempt_id), 0o700)
            settings = settings_of(self._config, self._directories, attempt_id, self._place, slot)
            volumes = [SharedVolumes(shared, names, self._directories, owner.node, owner.boot_id)] if shared else []
            executor = LocalExecutor(settings, hierarchy, SystemClock(), volumes)
            executor.subscribe(lambda _: self._changed.set())
            try:
                await executor.start()
                ended = await self._watch(executor, await asyncio.to_thread(self._furnished))
                self._record(ended, in_live=True)
                with _told_if_it_fails(attempt_id):
                    await executor.forget(attempt_id)
            finally:
                with _told_if_it_fails(attempt_id):
                    await executor.close()
                    remove_nested(owner.remains, EMPTY_WITHIN_SECONDS)
                    if shared is not None:
                        give_all_back(shared, attempt_id, names)
                    remove_directories(self._directories, attempt_id)
        return ended

    def _furnished(self) -> AttemptRequest:
        """With all that has come for it by the shared directory. Raises JobletError, OSError."""
        attempt_id, attempt, key = self._request.attempt_id, self._request.attempt, self._request.secrets_key
        contents = NodeContents(self._directories.contents, self._config.uploads.max_total_bytes)
        contents.provide(attempt.manifest, self._place.content, contents_of_attempt(self._directories.live(attempt_id)))
        return replace(attempt, secrets=sealed_secrets.take(self._place, attempt_id, key)) if key else attempt

    async def _watch(self, executor: LocalExecutor, attempt: AttemptRequest) -> Ended:
        await executor.submit(attempt)
        executor.dismiss_launcher()
        probing = asyncio.create_task(self._probe(executor, attempt), name="probing")
        try:
            return await self._until_it_ends(executor, attempt.attempt_id)
        finally:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)

    async def _probe(self, executor: LocalExecutor, attempt: AttemptRequest) -> None:
        await self._runs.wait()
        await answer_probes(executor, attempt, self._place)

    async def _until_it_ends(self, executor: LocalExecutor, attempt_id: AttemptId) -> Ended:
        notes: UsageNotes | None = None
        while True:
            self._changed.clear()
            if (told := self._told) is not None:
                self._told = None
                await executor.cancel(attempt_id, force=told is _KILL)
            seen = (await executor.observe([attempt_id]))[attempt_id]
            if isinstance(seen, Ended):
                return seen
            if isinstance(seen, Running) and notes is None:
                notes = UsageNotes(self._place, SystemClock())
                self._runs.set()
                with suppress(OSError):  # the shared directory is away: Slurm says that it runs
                    self._place.write(STATE, state_document(attempt_id, self._allocation, seen), durable=False)
            elif isinstance(seen, Running) and notes is not None:
                notes.note(seen.usage)
            await self._wait_for_change(notes)

    async def _wait_for_change(self, notes: UsageNotes | None) -> None:
        """Or until usage is to be noted again."""
        with suppress(TimeoutError):
            async with asyncio.timeout(notes.due_in_seconds() if notes is not None else None):
                await self._changed.wait()

    def _take_signal(self, number: signal.Signals) -> None:
        """Slurm's wish that the job ends: in an orderly way, or at once."""
        self._told = number
        self._changed.set()

    def _not_started(self, why: str) -> Ended:
        end = End(NotStarted(126, why), Reason.START_ERROR, SystemClock().wall_ns(), message=why)
        return Ended(end, ())

    def _record(self, ended: Ended, *, in_live: bool) -> None:
        """in_live: whether the local executor has files of it. Where the shared directory is away, it is told on the node."""
        attempt_id = self._request.attempt_id
        record = None
        if in_live:
            with suppress(ValueError):  # it is damaged, and the end says so
                record = attempt_files.read_exit(self._directories.attempt(attempt_id))
        document = exit_document(record, ended, attempt_id, self._allocation)
        try:
            self._place.write(EXIT, document, durable=True)
        except OSError:
            kept = self._directories.kept(attempt_id)
            os.makedirs(kept.directory, 0o711, exist_ok=True)
            kept.write(EXIT, document, durable=True)


@contextmanager
def _told_if_it_fails(attempt_id: str) -> Iterator[None]:
    """Clearing away, after the end is on record: what stays is removed by whoever comes by next."""
    try:
        yield
    except (JobletError, OSError) as error:
        print(f"joblet: {attempt_id}: not all is cleared away: {error}", file=sys.stderr)


def status_of(end: End) -> int:
    """As a shell would give it."""
    match end.outcome:
        case Exited(code):
            return code
        case Killed(name):
            return 128 + (signal.Signals[name].value if name in signal.Signals.__members__ else _number_of(name))
        case NotStarted():
            return COULD_NOT_START
        case _:
            return UNKNOWN


def _number_of(name: str) -> int:
    """Of a real-time signal, as ``signal_name`` writes it."""
    base, _, offset = name.partition("+")
    return signal.SIGRTMIN + int(offset) if base == "SIGRTMIN" and offset.isdecimal() else 0
