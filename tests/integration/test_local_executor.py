"""The local executor with the real launcher: adoption, loss, stops, limits, and that nothing stays."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from joblet.cgroup import CgroupError
from joblet.cgroup.hierarchy import SPARE
from joblet.clock import SystemClock
from joblet.manifest import JobManifest, jobs_of, read_manifests
from jobletd.executor import AttemptRequest, Ended, LogQuery, NeverSubmitted, Observation, Running
from jobletd.executor.local import LocalExecutor, LocalSettings
from jobletd.model import AttemptId, Exited, Killed, NotStarted, Reason, Unknown
from tests.integration.host import cgroup_directories, remove_cgroups
from tests.timing import PATIENCE

SLEEP = "command: [sleep, '600']\n  stop: {grace: 0s}"


def manifest(spec: str) -> JobManifest:
    text = f"apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: job}}\nspec:\n  {spec}\n"
    return jobs_of(read_manifests(text.encode(), filename="test.yml"))[0]


class Place:
    """The directories and cgroups of one host; executors come and go on it."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix=f"joblet-test-{os.getpid()}-"))
        self.base = f"/sys/fs/cgroup/{self.root.name}.slice/joblet.service"
        for name in ("state", "run"):
            (self.root / name).mkdir()
        self.settings = LocalSettings(f"{self.root}/state", f"{self.root}/log", f"{self.root}/run")
        self.count = 0

    @asynccontextmanager
    async def executor(self) -> AsyncIterator[Watching]:
        executor = LocalExecutor.on_this_host(self.settings, cgroup_base=self.base, clock=SystemClock())
        watching = Watching(self, executor)
        await executor.start()
        try:
            yield watching
        finally:
            await executor.close()

    async def clean_up(self) -> None:
        async with self.executor() as watching:
            await watching.executor.prune([])
        assert not list((self.root / "state/attempts").iterdir())
        assert not list((self.root / "state/work").iterdir())
        remove_cgroups(self.base)
        shutil.rmtree(self.root)

    def cgroups(self) -> list[Path]:
        return [child for base in cgroup_directories(self.base) for child in base.glob("job-*")]


class Watching:
    """An executor whose nudges can be waited for."""

    def __init__(self, place: Place, executor: LocalExecutor) -> None:
        self.place = place
        self.executor = executor
        self.nudged = asyncio.Event()
        executor.subscribe(lambda _: self.nudged.set())

    async def submit(self, spec: str, *, seconds: float | None = None) -> AttemptId:
        self.place.count += 1
        run_id = f"run{self.place.count:05d}"
        attempt_id = AttemptId(f"job-{run_id}-1")
        await self.executor.submit(AttemptRequest(attempt_id, run_id, 1, manifest(spec), seconds))
        return attempt_id

    async def look(self, attempt_id: AttemptId) -> Observation:
        return (await self.executor.observe([attempt_id]))[attempt_id]

    async def until(self, attempt_id: AttemptId, kind: type[Observation], *, within: float = 20) -> Observation:
        """Wait by nudges until the attempt is seen so."""
        async with asyncio.timeout(within * PATIENCE):
            while True:
                self.nudged.clear()
                seen = await self.look(attempt_id)
                if isinstance(seen, kind):
                    return seen
                await self.nudged.wait()

    async def ended(self, attempt_id: AttemptId) -> Ended:
        seen = await self.until(attempt_id, Ended)
        assert isinstance(seen, Ended)
        return seen


def play(scene: Callable[[Place], Awaitable[None]]) -> None:
    """Run a scene on a place of its own, and clean up whatever happens."""

    async def run() -> None:
        place = Place()
        try:
            await scene(place)
        finally:
            await place.clean_up()

    asyncio.run(run())


def init_pid(place: Place, attempt_id: AttemptId) -> int:
    return int((place.root / "state/attempts" / attempt_id / "state").read_text().split()[1])


def test_an_attempt_runs_once_however_often_it_is_submitted() -> None:
    async def scene(place: Place) -> None:
        async with place.executor() as host:
            assert isinstance(await host.look(AttemptId("job-nothing0-1")), NeverSubmitted)
            attempt_id = await host.submit("command: [echo, once]")
            request = AttemptRequest(attempt_id, "run00001", 1, manifest("command: [echo, twice]"), None)
            await host.executor.submit(request)
            ended = await host.ended(attempt_id)
            await host.executor.submit(request)
            assert ended.end.outcome == Exited(0)
            batches = [batch async for batch in host.executor.logs(attempt_id, LogQuery())]
            assert [entry.data for batch in batches for entry in batch] == [b"once\n"]
            await host.executor.forget(attempt_id)
            assert place.cgroups() == []

    play(scene)


def test_another_executor_adopts_what_runs_and_stops_it() -> None:
    async def scene(place: Place) -> None:
        async with place.executor() as first:
            attempt_id = await first.submit(SLEEP)
            await first.until(attempt_id, Running)
        async with place.executor() as second:
            assert isinstance(await second.look(attempt_id), Running)
            await second.executor.cancel(attempt_id, force=False)
            ended = await second.ended(attempt_id)
            assert ended.end.reason is Reason.STOPPED

    play(scene)


@pytest.mark.parametrize("when", ["it is dying", "it is dead"])
def test_a_launcher_that_is_killed_is_replaced_and_jobs_go_on(when: str) -> None:
    async def scene(place: Place) -> None:
        async with place.executor() as host:
            first = await host.submit(SLEEP)
            await host.until(first, Running)
            process = host.executor._launcher._process
            assert process is not None
            os.kill(process.pid, signal.SIGKILL)
            if when == "it is dead":  # and the event loop, which waits here, was not told so yet
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222
            second = await host.submit("command: ['true']")
            assert (await host.ended(second)).end.outcome == Exited(0)
            assert isinstance(await host.look(first), Running)

    play(scene)


def test_an_init_that_is_killed_is_lost_and_its_command_with_it() -> None:
    async def scene(place: Place) -> None:
        async with place.executor() as host:
            attempt_id = await host.submit(SLEEP)
            await host.until(attempt_id, Running)
            os.kill(init_pid(place, attempt_id), signal.SIGKILL)
            ended = await host.ended(attempt_id)
            assert ended.end.reason is Reason.LOST and isinstance(ended.end.outcome, Unknown)
            await host.executor.forget(attempt_id)
            assert place.cgroups() == []

    play(scene)


def test_a_state_of_another_boot_means_that_the_host_was_started_anew() -> None:
    async def scene(place: Place) -> None:
        async with place.executor() as host:
            attempt_id = await host.submit(SLEEP)
            await host.until(attempt_id, Running)
            state = place.root / "state/attempts" / attempt_id / "state"
            pid = init_pid(place, attempt_id)
        os.kill(pid, signal.SIGKILL)
        state.write_text("exec 1 1 another-boot\nstarted 5\n")
        async with place.executor() as host:
            ended = await host.ended(attempt_id)
            assert (ended.end.reason, ended.end.started_ns) == (Reason.NODE_REBOOT, 5)

    play(scene)


def test_a_stop_by_force_kills_at_once() -> None:
    async def scene(place: Place) -> None:
        async with place.executor() as host:
            attempt_id = await host.submit("script: |\n    trap '' TERM\n    sleep 600\n  stop: {grace: 500s}")
            await host.until(attempt_id, Running)
            await host.executor.cancel(attempt_id, force=True)
            end = (await host.ended(attempt_id)).end
            assert (end.outcome, end.reason) == (Killed("SIGKILL"), Reason.STOPPED)

    play(scene)


def test_an_init_that_does_not_react_is_killed_cleanup_seconds_after_the_grace() -> None:
    async def scene(place: Place) -> None:
        async with place.executor() as host:
            host.executor.reconfigure(replace(host.executor._settings, cleanup_seconds=0.2 * PATIENCE))
            attempt_id = await host.submit(SLEEP)
            await host.until(attempt_id, Running)
            os.kill(init_pid(place, attempt_id), signal.SIGSTOP)
            await host.executor.cancel(attempt_id, force=False)
            assert (await host.ended(attempt_id)).end.reason is Reason.LOST

    play(scene)


def test_an_unenforceable_limit_is_an_error_or_is_shown() -> None:
    async def scene(place: Place) -> None:
        async with place.executor() as host:
            attempt_id = await host.submit("command: ['true']\n  limits: {cpus: '8000'}")
            ended = await host.ended(attempt_id)
            assert isinstance(ended.end.outcome, NotStarted)
            assert ended.end.reason is Reason.LIMIT_NOT_ENFORCEABLE and "best-effort" in ended.end.message
            attempt_id = await host.submit("command: ['true']\n  limits: {cpus: '8000', enforcement: best-effort}")
            ended = await host.ended(attempt_id)
            assert ended.end.outcome == Exited(0)
            (limit,) = [limit for limit in ended.limits if limit.name == "cpus"]
            assert (limit.asked, limit.enforced) == ("8000", False) and limit.message

    play(scene)


def test_limits_change_in_place_and_are_read_back() -> None:
    async def scene(place: Place) -> None:
        async with place.executor() as host:
            attempt_id = await host.submit(f"{SLEEP}\n  limits: {{memory: 32Mi}}")
            await host.until(attempt_id, Running)
            limits = await host.executor.update_limits(
                attempt_id, manifest(f"{SLEEP}\n  limits: {{memory: 48Mi, pids: 9}}")
            )
            shown = {limit.name: limit.effective for limit in limits}
            assert (shown["memory"], shown["pids"]) == ("48Mi", "9")

    play(scene)


def test_what_belongs_to_nobody_is_killed_and_freed() -> None:
    async def scene(place: Place) -> None:
        async with place.executor() as host:
            kept, stray = await host.submit(SLEEP), await host.submit(SLEEP)
            for attempt_id in (kept, stray):
                await host.until(attempt_id, Running)
        async with place.executor() as host:
            await host.executor.prune([kept])
            assert isinstance(await host.look(stray), NeverSubmitted)
            assert isinstance(await host.look(kept), Running)
            assert {path.name for path in place.cgroups()} == {f"job-{kept}"}
            assert os.listdir(place.root / "state/attempts") == [kept]

    play(scene)


def test_a_time_limit_ends_it_without_the_daemon() -> None:
    async def scene(place: Place) -> None:
        async with place.executor() as host:
            attempt_id = await host.submit(SLEEP, seconds=0.3)
        async with asyncio.timeout(30 * PATIENCE):  # nobody is there but its init
            while not (place.root / "state/attempts" / attempt_id / "exit.json").exists():
                await asyncio.sleep(0.01)
        async with place.executor() as host:
            assert (await host.ended(attempt_id)).end.reason is Reason.TIMED_OUT

    play(scene)


def test_a_small_disk_is_limited_in_memory() -> None:
    async def scene(place: Place) -> None:
        async with place.executor() as host:
            attempt_id = await host.submit(
                "command: [sh, -c, 'head -c 64000000 /dev/zero > /work/x']\n  limits: {disk: 16Mi}"
            )
            ended = await host.ended(attempt_id)
            assert ended.end.outcome == Exited(1)
            assert [limit.effective for limit in ended.limits if limit.name == "disk"] == ["16Mi"]
            await host.executor.forget(attempt_id)

    play(scene)


def test_launches_at_the_same_time_do_not_mix() -> None:
    async def scene(place: Place) -> None:
        async with place.executor() as host:
            ids = await asyncio.gather(*(host.submit(f"command: [sh, -c, 'exit {code}']") for code in range(20)))
            ends = [(await host.ended(attempt_id)).end.outcome for attempt_id in ids]
            assert ends == [Exited(code) for code in range(20)]
            await asyncio.gather(*map(host.executor.forget, ids))
            assert place.cgroups() == []

    play(scene)


def test_two_daemons_cannot_share_a_base(tmp_path: Path) -> None:
    async def scene(place: Place) -> None:
        async with place.executor() as host:
            running = await host.submit(SLEEP)
            await host.until(running, Running)
            for name in ("state", "run"):
                (tmp_path / name).mkdir()
            settings = LocalSettings(f"{tmp_path}/state", f"{tmp_path}/log", f"{tmp_path}/run")
            other = LocalExecutor.on_this_host(settings, cgroup_base=place.base, clock=SystemClock())
            with pytest.raises(CgroupError, match="another daemon uses it"):
                await other.start()
            assert isinstance(await host.look(running), Running)

    play(scene)


@pytest.mark.native_only(reason="in v2 the one base directory is never empty: the inits sit in it")
def test_a_base_that_somebody_removed_is_made_again() -> None:
    async def scene(place: Place) -> None:
        async with place.executor() as host:
            for directory in cgroup_directories(place.base):
                if directory.parent.parent.name != "unified":  # where the spare sits
                    if (directory / SPARE).is_dir():
                        (directory / SPARE).rmdir()
                    directory.rmdir()
            second = await host.submit("command: ['true']\n  limits: {memory: 32Mi}")
            assert (await host.ended(second)).end.outcome == Exited(0)

    play(scene)


def test_what_was_made_above_the_base_goes_too_after_a_crash() -> None:
    async def scene(place: Place) -> None:
        crashed = LocalExecutor.on_this_host(place.settings, cgroup_base=place.base, clock=SystemClock())
        await crashed.start()
        crashed._launcher.close()
        crashed._hierarchy.unlock()  # as its death would
        async with place.executor():
            pass
        assert cgroup_directories(os.path.dirname(place.base)) == []

    play(scene)


def test_a_range_of_user_ids_is_given_back_whatever_died() -> None:
    async def scene(place: Place) -> None:
        place.settings = replace(place.settings, id_slots=1)
        async with place.executor() as host:
            first = await host.submit(SLEEP)
            await host.until(first, Running)
            second = await host.ended(await host.submit(SLEEP))
            assert isinstance(second.end.outcome, NotStarted) and "isolation.idSlots" in second.end.message
        # Another daemon, another pool that overlaps: the range is still held.
        shifted = place.settings.id_base + 1000
        place.settings = replace(place.settings, id_base=shifted)
        async with place.executor() as host:
            third = await host.ended(await host.submit(SLEEP))
            assert isinstance(third.end.outcome, NotStarted) and "isolation.idSlots" in third.end.message
            os.kill(init_pid(place, first), signal.SIGKILL)
            assert isinstance((await host.ended(first)).end.outcome, Unknown)
            await host.executor.forget(first)
            fourth = await host.submit("command: [cat, /proc/self/uid_map]")
            assert (await host.ended(fourth)).end.outcome == Exited(0)
            batches = [batch async for batch in host.executor.logs(fourth, LogQuery())]
            assert batches[0][0].data.split() == [b"0", str(shifted).encode(), b"65536"]

    play(scene)


def test_what_the_launcher_cannot_take_is_on_record_instead_of_launched_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scene(place: Place) -> None:
        async with place.executor() as host:
            launcher = host.executor._launcher
            launch = launcher.launch
            elsewhere = {"attempt_dir": "/nonexistent"}
            monkeypatch.setattr(launcher, "launch", lambda spec, given=(): launch({**spec, **elsewhere}, given))
            ended = await host.ended(await host.submit("command: ['true']"))
            assert isinstance(ended.end.outcome, NotStarted) and "no attempt's directory" in ended.end.message
            monkeypatch.undo()
            assert (await host.ended(await host.submit("command: ['true']"))).end.outcome == Exited(0)

    play(scene)


@pytest.mark.parametrize(
    "damage", ['{"version":1,"outcome":{"type":"exited"}}', '{"version":1,"outcome":{"type":"exited","code":1}}']
)
def test_an_attempt_whose_record_makes_no_sense_is_lost(damage: str) -> None:
    async def scene(place: Place) -> None:
        async with place.executor() as host:
            attempt_id = await host.submit("command: ['true']")
            await host.ended(attempt_id)
        (place.root / "state/attempts" / attempt_id / "exit.json").write_text(damage)
        async with place.executor() as host:
            end = (await host.ended(attempt_id)).end
            assert (type(end.outcome), end.reason) == (Unknown, Reason.LOST) and "is damaged" in end.message

    play(scene)


def test_an_image_takes_and_frees_its_loop_device() -> None:
    async def scene(place: Place) -> None:
        place.settings = replace(place.settings, memory_disk_bytes=1 << 20)
        async with place.executor() as host:
            attempt_id = await host.submit(
                "command: [sh, -c, 'stat -f -c %T /work; sleep 600']\n  limits: {disk: 16Mi}"
            )
            await host.until(attempt_id, Running)
            image = f"{place.root.name}/state/work/{attempt_id}/disk.ext4"  # the kernel names it from its mount on
            assert image in backing_files() and (place.root.parent / image).stat().st_mode & 0o777 == 0o600
            await host.executor.cancel(attempt_id, force=True)
            await host.ended(attempt_id)
            await host.executor.forget(attempt_id)
            assert os.listdir(place.root / "state/work") == []
            async with asyncio.timeout(10 * PATIENCE):
                while image in backing_files():  # the kernel frees it once the last process is gone from the mount
                    await asyncio.sleep(0.01)

    play(scene)


def backing_files() -> str:
    """What the host's loop devices are made of."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            found.append(path.read_text())
    return "".join(found)
