"""What ``jobletd.executor.Executor`` promises, of every executor there is."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator

import pytest

from joblet.manifest import Probe
from jobletd.executor import AttemptRequest, Ended, GivenSecrets, LogQuery, NeverSubmitted, Running
from jobletd.model import AttemptId, Exited, Killed, NotStarted, Reason
from tests.executors.stages import Daemon, LocalStage, RemoteSlurmStage, SlurmStage, Stage, daemon, manifest
from tests.slurm.attempts import init_nodes
from tests.slurm.cluster import Cluster
from tests.timing import PATIENCE

SLEEP = "command: [sleep, '600']\n  stop: {grace: 0s}"
REMOTE = "slurm without a shared directory"
# What travels by the directory that all hosts share; without one it is refused.
with_a_directory = pytest.mark.parametrize("stage", ["local", "slurm"], indirect=True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One for all tests here: it takes seconds."""
    with Cluster(nodes=3, cpus=8) as cluster:
        init_nodes(cluster)
        yield cluster


@pytest.fixture(scope="module", params=["local", "slurm", REMOTE])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """At the end nothing is left of any attempt."""
    kinds = {kind.name: kind for kind in (SlurmStage, RemoteSlurmStage)}
    made: LocalStage | SlurmStage
    is_local = request.param == LocalStage.name
    made = LocalStage() if is_local else kinds[request.param](request.getfixturevalue("cluster"))
    try:
        yield made
        clear(made)
    finally:
        made.close()


def clear(stage: Stage) -> None:
    async def scene(host: Daemon) -> None:
        await host.executor.prune([])
        async with asyncio.timeout(30 * PATIENCE):
            while left := stage.left_overs():
                await asyncio.sleep(0.1)
        assert not left

    play(stage, scene)


def play(stage: Stage, scene: Callable[[Daemon], Awaitable[None]]) -> None:
    """Within the time of one daemon."""

    async def run() -> None:
        async with daemon(stage) as host:
            await scene(host)

    asyncio.run(run())


def test_an_attempt_that_was_never_submitted_is_known_as_such(stage: Stage) -> None:
    async def scene(host: Daemon) -> None:
        nobody = AttemptId("job-nothing0-1")
        assert isinstance(await host.look(nobody), NeverSubmitted)
        await host.executor.cancel(nobody, force=True)
        await host.executor.forget(nobody)

    play(stage, scene)


def test_an_attempt_runs_once_however_often_it_is_submitted(stage: Stage) -> None:
    async def scene(host: Daemon) -> None:
        attempt_id = await host.submit("command: [echo, once]")
        run_id = attempt_id.split("-")[1]
        again = AttemptRequest(attempt_id, run_id, 1, manifest("command: [echo, twice]"), None)
        await host.executor.submit(again)
        ended = await host.ended(attempt_id)
        await host.executor.submit(again)
        assert (await host.look(attempt_id)) == ended
        assert (ended.end.outcome, ended.end.reason) == (Exited(0), Reason.COMPLETED)
        assert ended.end.started_ns is not None and ended.end.started_ns <= ended.end.ended_ns
        assert await host.output(attempt_id) == b"once\n"

    play(stage, scene)


def test_each_way_to_end_is_told_as_what_it_is(stage: Stage) -> None:
    async def scene(host: Daemon) -> None:
        specs = {
            "code": "script: exit 3",
            "signal": "script: kill -SEGV $$",
            "missing": "command: [/usr/bin/no-such-command]",
            "memory": "command: [python3, -c, 'bytearray(300 << 20)']\n  limits: {memory: 64Mi}",
            "time": "command: [sleep, '600']\n  attemptTimeout: 500ms\n  stop: {grace: 0s}",
            "outputs": "script: mkdir -p outputs; printf 7 > outputs/rows\n  outputs: [rows]",
        }
        ids = {name: await host.submit(spec) for name, spec in specs.items()}
        ends = {name: await host.ended(attempt_id) for name, attempt_id in ids.items()}
        seen = {name: (ended.end.outcome, ended.end.reason) for name, ended in ends.items()}
        assert seen["code"] == (Exited(3), Reason.EXIT_CODE)
        assert seen["signal"] == (Killed("SIGSEGV"), Reason.SIGNAL)
        missing, reason = seen["missing"]
        assert isinstance(missing, NotStarted) and (missing.code, reason) == (127, Reason.START_ERROR)
        assert ends["missing"].end.started_ns is None
        assert seen["memory"] == (Killed("SIGKILL"), Reason.OOM_KILLED)
        assert "memory" in [limit.name for limit in ends["memory"].limits if limit.enforced]
        assert seen["time"][1] is Reason.TIMED_OUT
        assert ends["outputs"].end.outputs == {"rows": "7"}

    play(stage, scene)


def test_the_time_of_the_run_ends_an_attempt(stage: Stage) -> None:
    async def scene(host: Daemon) -> None:
        attempt_id = await host.submit(SLEEP, seconds=4)
        assert (await host.ended(attempt_id)).end.reason is Reason.TIMED_OUT

    play(stage, scene)


def test_a_stop_gives_the_command_its_signal_and_its_grace(stage: Stage) -> None:
    async def scene(host: Daemon) -> None:
        spec = "script: |\n    trap 'echo asked; exit 4' USR1\n    echo ready\n    while :; do sleep 0.1; done"
        attempt_id = await host.submit(spec + "\n  stop: {signal: SIGUSR1, grace: 30s}")
        await host.running(attempt_id)
        assert b"ready\n" in await first_output(host, attempt_id)
        await host.executor.cancel(attempt_id, force=False)
        await host.executor.cancel(attempt_id, force=False)
        ended = await host.ended(attempt_id)
        assert (ended.end.outcome, ended.end.reason) == (Exited(4), Reason.STOPPED)
        assert await host.output(attempt_id) == b"ready\nasked\n"

    play(stage, scene)


async def first_output(host: Daemon, attempt_id: AttemptId) -> bytes:
    async with asyncio.timeout(30 * PATIENCE):
        async for batch in host.executor.logs(attempt_id, LogQuery(follow=True)):
            return b"".join(entry.data for entry in batch)
    raise AssertionError("no output")


def test_a_stop_by_force_ends_what_ignores_all_else(stage: Stage) -> None:
    async def scene(host: Daemon) -> None:
        spec = "script: |\n    trap '' TERM\n    while :; do sleep 0.1; done"
        attempt_id = await host.submit(spec + "\n  stop: {grace: 10m}")
        await host.running(attempt_id)
        await host.executor.cancel(attempt_id, force=False)
        await host.executor.cancel(attempt_id, force=True)
        assert (await host.ended(attempt_id)).end.reason is Reason.STOPPED

    play(stage, scene)


def test_a_stop_that_comes_at_once_ends_it_too(stage: Stage) -> None:
    async def scene(host: Daemon) -> None:
        attempt_id = await host.submit(SLEEP)
        async with asyncio.timeout(30 * PATIENCE):
            while not isinstance(seen := await host.look(attempt_id), Ended):
                await host.executor.cancel(attempt_id, force=True)
                await asyncio.sleep(0.05)
        assert seen.end.reason is Reason.STOPPED

    play(stage, scene)


def test_another_daemon_adopts_what_runs_and_what_ended_meanwhile(stage: Stage) -> None:
    async def scenes() -> None:
        async with daemon(stage) as first:
            running = await first.submit(SLEEP)
            started = await first.running(running)
            seconds = 2
            short = await first.submit(f"script: sleep {seconds}; exit 5")
            # A longer one, where that was over before it was seen.
            while not isinstance(await first.until(short, (Running, Ended)), Running):  # type: ignore[arg-type]
                assert seconds < 32, "none was seen to run"
                seconds *= 4
                short = await first.submit(f"script: sleep {seconds}; exit 5")
        await asyncio.sleep(seconds + 1)  # nobody is there to be told of its end
        async with daemon(stage) as second:
            seen = await second.running(running)
            assert seen.started_ns == started.started_ns
            assert (await second.ended(short)).end.outcome == Exited(5)
            await second.executor.cancel(running, force=False)
            assert (await second.ended(running)).end.reason is Reason.STOPPED

    asyncio.run(scenes())


def test_a_log_is_followed_until_the_end(stage: Stage) -> None:
    async def scene(host: Daemon) -> None:
        attempt_id = await host.submit("script: for i in 1 2 3; do echo line $i; sleep 0.2; done; echo bye >&2")
        await host.until(attempt_id, (Running, Ended))  # type: ignore[arg-type]
        assert await host.output(attempt_id, LogQuery(follow=True)) == b"line 1\nline 2\nline 3\nbye\n"
        assert await host.output(attempt_id, LogQuery(stream="stderr")) == b"bye\n"
        assert await host.output(attempt_id, LogQuery(tail_lines=2)) == b"line 3\nbye\n"

    play(stage, scene)


def test_what_is_forgotten_keeps_its_log_until_that_is_removed(stage: Stage) -> None:
    async def scene(host: Daemon) -> None:
        attempt_id = await host.submit("command: [echo, kept]")
        await host.ended(attempt_id)
        await host.executor.forget(attempt_id)
        await host.executor.forget(attempt_id)
        assert await host.output(attempt_id) == b"kept\n"
        assert await host.executor.log_bytes(attempt_id) > 0
        await host.executor.remove_logs(attempt_id)
        assert await host.executor.log_bytes(attempt_id) == 0
        assert await host.output(attempt_id) == b""

    play(stage, scene)


def test_what_belongs_to_nobody_is_ended(stage: Stage) -> None:
    async def scenes() -> None:
        async with daemon(stage) as first:
            orphan, kept = await first.submit(SLEEP), await first.submit(SLEEP)
            await first.running(orphan)
            await first.running(kept)
        async with daemon(stage) as second:
            await second.executor.prune([kept])
            async with asyncio.timeout(30 * PATIENCE):
                while not isinstance(await second.look(orphan), NeverSubmitted):
                    await asyncio.sleep(0.05)
            assert isinstance(await second.running(kept), Running)
            await second.executor.cancel(kept, force=True)
            await second.ended(kept)

    asyncio.run(scenes())


def test_submissions_at_the_same_time_do_not_mix(stage: Stage) -> None:
    async def scene(host: Daemon) -> None:
        ids = await asyncio.gather(*(host.submit(f"script: echo {n}; exit {n}") for n in range(8)))
        for number, attempt_id in enumerate(ids):
            assert (await host.ended(attempt_id, within=60)).end.outcome == Exited(number)
            assert await host.output(attempt_id) == f"{number}\n".encode()

    play(stage, scene)


def test_what_the_policy_forbids_does_not_start(stage: Stage) -> None:
    async def scene(host: Daemon) -> None:
        attempt_id = await host.submit("command: ['true']\n  isolation: {network: host}")
        ended = await host.ended(attempt_id)
        assert isinstance(ended.end.outcome, NotStarted) and ended.end.reason is Reason.NOT_ALLOWED

    play(stage, scene)


@with_a_directory
def test_secrets_are_files_for_the_command_alone_and_variables(stage: Stage) -> None:
    async def scene(host: Daemon) -> None:
        given = GivenSecrets({"database/password": b"of \xff bytes"}, {"TOKEN": b"in the environment"})
        sums = 'sha256sum <database/password; printf %s "$TOKEN" | sha256sum'
        script = (
            f"{sums}; stat -c '%a %U' database/password; touch x || echo refused; cat database/password; echo $TOKEN"
        )
        attempt_id = await host.submit(f"script: cd /run/secrets; {script}", secrets=given)
        await host.ended(attempt_id)
        lines = (await host.output(attempt_id, LogQuery(stream="stdout"))).splitlines()
        sums_of_both = [
            f"{hashlib.sha256(value).hexdigest()}  -".encode() for value in (b"of \xff bytes", b"in the environment")
        ]
        assert lines == [*sums_of_both, b"400 root", b"refused", b"******"]

    play(stage, scene)


@with_a_directory
def test_uploaded_contents_are_files_of_the_workspace(stage: Stage) -> None:
    async def scene(host: Daemon) -> None:
        data = b"uploaded\n" * 1000
        sha256 = hashlib.sha256(data).hexdigest()
        (stage.contents / sha256).write_bytes(data)
        files = (
            f"files: [{{path: a/data, mode: '0640', sha256: {sha256}, size: {len(data)}}}, {{path: b, link: a/data}}]"
        )
        ids = [await host.submit(f"script: sha256sum <b; stat -c %a a/data\n  {files}") for _ in range(3)]
        for attempt_id in ids:
            assert (await host.ended(attempt_id)).end.outcome == Exited(0)
            assert await host.output(attempt_id) == f"{sha256}  -\n640\n".encode()

    play(stage, scene)


@with_a_directory
def test_a_content_that_is_not_there_is_a_start_error(stage: Stage) -> None:
    async def scene(host: Daemon) -> None:
        attempt_id = await host.submit(f"command: ['true']\n  files: [{{path: a, sha256: {'a' * 64}, size: 1}}]")
        end = (await host.ended(attempt_id)).end
        assert isinstance(end.outcome, NotStarted) and end.reason is Reason.START_ERROR and end.message

    play(stage, scene)


@with_a_directory
def test_a_probe_is_answered_by_what_runs_in_its_own_namespaces(stage: Stage) -> None:
    async def scene(host: Daemon) -> None:
        server = "python3 -m http.server --bind 127.0.0.1 8080"
        script = f"touch well; {server} 2>&1 >/dev/null & while [ -e well ]; do sleep 0.1; done; kill $!; sleep 600"
        requests = [
            host.request(service(script, way))
            for way in ("command: [test, -e, well]", "tcp: 8080", "http: {port: 8080, path: /well}")
        ]
        for request in requests:
            await host.executor.submit(request)
        for request in requests:
            await answered(host, request, well=True)
        by_command = requests[0].manifest.spec.probe
        assert by_command is not None
        spoil = by_command.model_copy(update={"command": ("rm", "-f", "well")})  # by a probe, which is in there, too
        for request in requests:
            await answered(host, request, well=True, probe=spoil)
        for request in requests:
            await answered(host, request, well=False)
        for request in requests:
            await host.executor.cancel(request.attempt_id, force=True)
            await host.ended(request.attempt_id)

    play(stage, scene)


@with_a_directory
def test_another_probe_is_taken_over_by_what_runs(stage: Stage) -> None:
    async def scene(host: Daemon) -> None:
        request = host.request(service("touch b; sleep 600", "command: [test, -e, a]"))
        await host.executor.submit(request)
        await answered(host, request, well=False)
        before = request.manifest.spec.probe
        assert before is not None
        other = before.model_copy(update={"command": ("test", "-e", "b")})
        await answered(host, request, well=True, probe=other)
        await host.executor.cancel(request.attempt_id, force=True)
        await host.ended(request.attempt_id)

    play(stage, scene)


@pytest.mark.parametrize("stage", [REMOTE], indirect=True)
@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ("secrets: [{name: token}]", "spec.secrets"),
        (f"files: [{{path: a, sha256: {'a' * 64}, size: 1}}]", "spec.files"),
        ("restart: Always\n  probe: {tcp: 80}", "spec.probe"),
        ("volumes: [{name: data, path: /data}]", "spec.volumes"),
    ],
)
def test_what_travels_by_a_shared_directory_is_refused_without_one(stage: Stage, spec: str, path: str) -> None:
    async def scene(host: Daemon) -> None:
        attempt_id = await host.submit(f"command: ['true']\n  {spec}")
        end = (await host.ended(attempt_id)).end
        assert isinstance(end.outcome, NotStarted) and end.reason is Reason.NOT_ALLOWED
        assert path in end.outcome.error and "slurm.sharedDirectory" in end.outcome.error

    play(stage, scene)


def service(script: str, way: str) -> str:
    return (
        f"script: {script}\n  restart: Always\n  stop: {{grace: 0s}}\n  probe: {{{way}, interval: 200ms, timeout: 9s}}"
    )


async def answered(host: Daemon, request: AttemptRequest, *, well: bool, probe: Probe | None = None) -> None:
    """Ask until it says so."""
    asked = probe or request.manifest.spec.probe
    assert asked is not None
    await host.running(request.attempt_id)
    async with asyncio.timeout(40 * PATIENCE):
        while True:
            for why in await host.executor.probe(request, asked):
                if (not why) is well:
                    return
            await asyncio.sleep(0.1)
