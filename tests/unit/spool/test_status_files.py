"""The status files: what they say, that bursts become one write, that they go with the job."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from joblet.manifest import JobManifest
from jobletd.model import (
    Attempt,
    AttemptId,
    Condition,
    End,
    Exited,
    JobName,
    JobView,
    LimitStatus,
    Phase,
    Reason,
    Run,
    RunId,
    Source,
    Usage,
)
from jobletd.sources import status_files
from jobletd.sources.status_files import StatusFiles, status_text
from tests.timing import PATIENCE
from tests.unit.manifest.samples import raw

MANIFEST = JobManifest.model_validate(raw())
END = End(Exited(3), Reason.EXIT_CODE, 2 * 10**18, usage=Usage(memory_peak_bytes=4096, cpu_seconds=0.25, oom_kills=0))
ATTEMPT = Attempt(
    AttemptId("a-x-1"),
    RunId("x"),
    1,
    Phase.FAILED,
    10**18,
    end=END,
    limits=(LimitStatus("memory", "64Mi", "64Mi", True),),
)
RUN = Run(
    RunId("abcd1234"), JobName("a"), "u", 1, "generation", Phase.FAILED, MANIFEST, 10**18, Reason.EXIT_CODE,
    "said: no\n2", ended_ns=2 * 10**18 + 5 * 10**6, outcome=Exited(3), attempts=(ATTEMPT,),
)  # fmt: skip
VIEW = JobView(
    "u", MANIFEST, Source("spool", "a.yml"), 2, 1, 10**18, 10**18,
    conditions=(Condition("Valid", "False", "InvalidManifest", "a.yml:1:1: x", 10**18),),
    runs=(RUN, replace(RUN, id=RunId("older"), phase=Phase.STOPPED)),
)  # fmt: skip


def test_a_status_tells_phase_reason_exit_code_limits_and_usage() -> None:
    status = YAML(typ="safe", pure=True).load(status_text(VIEW))
    assert (status["name"], status["source"], status["generation"]) == ("a", "spool:a.yml", 2)
    assert status["conditions"][0]["message"] == "a.yml:1:1: x"
    run = status["run"]
    assert (run["id"], run["phase"], run["reason"], run["exitCode"]) == ("abcd1234", "FAILED", "ExitCode", 3)
    assert run["message"] == "said: no\n2"
    assert run["limits"] == [{"name": "memory", "asked": "64Mi", "effective": "64Mi", "enforced": True}]
    assert run["usage"] == {"memoryPeakBytes": 4096, "cpuSeconds": 0.25, "oomKills": 0}
    assert "2033-05-18T03:33:20.005Z" in status_text(VIEW)
    assert [earlier["id"] for earlier in status["earlierRuns"]] == ["older"]


def test_a_burst_of_changes_becomes_one_write_and_the_file_goes_with_the_job(tmp_path: Path) -> None:
    async def check() -> None:
        files = StatusFiles(str(tmp_path / "status"))
        path = tmp_path / "status" / "a.yml"
        for generation in range(100):
            files.changed(JobName("a"), replace(VIEW, generation=generation))
        assert not path.exists()
        async with asyncio.timeout(20 * PATIENCE):
            while not path.exists():
                await asyncio.sleep(0.005)
        assert "generation: 99\n" in path.read_text()
        inode = path.stat().st_ino
        files.changed(JobName("a"), replace(VIEW, generation=99))
        files.flush()
        assert path.stat().st_ino == inode
        files.changed(JobName("a"), None)
        files.flush()
        assert list(path.parent.iterdir()) == []

    asyncio.run(check())


def test_what_an_earlier_daemon_wrote_stays_if_it_is_right_and_is_written_anew_if_not(tmp_path: Path) -> None:
    async def check() -> None:
        path = tmp_path / "a.yml"
        path.write_text(status_text(VIEW))
        inode = path.stat().st_ino
        files = StatusFiles(str(tmp_path))
        files.changed(JobName("a"), VIEW)
        files.flush()
        assert path.stat().st_ino == inode
        path.write_text("of an older version")
        files = StatusFiles(str(tmp_path))
        files.changed(JobName("a"), VIEW)
        files.flush()
        assert path.read_text() == status_text(VIEW)

    asyncio.run(check())


def test_files_that_an_earlier_daemon_left_are_removed_but_errors_are_not(tmp_path: Path) -> None:
    for name in ("a.yml", "b.yml", "c.yml.error.yml", ".a.yml.17.tmp"):
        (tmp_path / name).write_text("x")
    StatusFiles(str(tmp_path)).keep_only({JobName("a")})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.yml", "c.yml.error.yml"]


def test_a_status_directory_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    async def check() -> None:
        (tmp_path / "status").write_text("a file in the way")
        files = StatusFiles(str(tmp_path / "status"))
        files.changed(JobName("a"), VIEW)
        files.flush()
        (tmp_path / "status").unlink()
        files.changed(JobName("a"), VIEW)
        files.flush()
        assert (tmp_path / "status" / "a.yml").exists()

    asyncio.run(check())


def at(phase: Phase) -> JobView:
    return replace(VIEW, runs=(replace(RUN, phase=phase),))


async def written(files: StatusFiles, path: Path, phase: Phase) -> None:
    """Until the file says so, and the writer knows it too: it is at rest."""

    def says() -> bool:
        return files._writer is None and path.exists() and f"phase: {phase}\n" in path.read_text()

    async with asyncio.timeout(20 * PATIENCE):
        while not says():
            await asyncio.sleep(0.005)


def test_that_a_run_is_being_launched_is_not_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        status_files, "_STARTING_SECONDS", 3600.0
    )  # so that what comes later is not late on a busy machine

    async def check() -> None:
        files = StatusFiles(str(tmp_path))
        path = tmp_path / "a.yml"
        files.changed(JobName("a"), at(Phase.PENDING))
        await written(files, path, Phase.PENDING)
        files.changed(JobName("a"), at(Phase.INITIALIZING))
        files.changed(JobName("b"), at(Phase.FAILED))
        await written(files, tmp_path / "b.yml", Phase.FAILED)
        assert path.read_text() == status_text(at(Phase.PENDING)), "what came later was written before it"
        files.changed(JobName("a"), at(Phase.RUNNING))
        await written(files, path, Phase.RUNNING)
        files.changed(JobName("a"), at(Phase.INITIALIZING))
        files.flush()
        assert path.read_text() == status_text(at(Phase.INITIALIZING))

    asyncio.run(check())


def test_that_a_run_is_being_launched_is_written_if_it_stays_so(tmp_path: Path) -> None:
    async def check() -> None:
        files = StatusFiles(str(tmp_path))
        path = tmp_path / "a.yml"
        for phase in (Phase.PENDING, Phase.INITIALIZING, Phase.RUNNING, Phase.INITIALIZING, Phase.COMPLETED):
            files.changed(JobName("a"), at(phase))
            await written(files, path, phase)

    asyncio.run(check())
