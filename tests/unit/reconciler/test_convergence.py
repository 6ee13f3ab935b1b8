"""Edits in spool, repository and by clients, in any order and with daemons that die in between: it comes to rest, in one state.

The desired state, the planning of each source, the reconciler and the store are the real ones; only what a repository holds comes
from memory instead of from git, and attempts run on a host in memory.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from joblet.manifest import GitSourceManifest, GitSourceSpec, JobManifest, jobs_of, manifest_to_json, read_manifests
from jobletd.errors import NoSuchJob, OwnershipConflict
from jobletd.model import JobName, Source
from jobletd.sources.desired_jobs import DesiredJobs
from jobletd.sources.git.contents import Contents
from jobletd.sources.git.repository import CommitFacts, Mirror, Remote
from jobletd.sources.git.source import GitSource, Settings, Wishes
from jobletd.sources.git.tree import Tree
from jobletd.sources.spool import Spool, SpoolSettings
from tests.unit.reconciler.world import SteppedLoop, World, job

T = TypeVar("T")
CLIENT = Source("grpc", "ann")
JOBS, FILES = ("w", "x", "y", "z"), ("a.yml", "b.yml")
content = st.dictionaries(st.sampled_from(JOBS), st.integers(1, 3), max_size=3)  # job: which version of it
tree = st.fixed_dictionaries({"a.yml": content, "b.yml": content}).filter(
    lambda files: not files["a.yml"].keys() & files["b.yml"].keys()  # else the commit is refused
)


def manifest(name: str, version: int) -> JobManifest:
    (one,) = jobs_of(read_manifests(job(name=name, command=f"[sleep, '{version}']").encode(), filename="x.yml"))
    return one


class MemoryMirror(Mirror):
    """Knows every commit, since what it is asked for is only told to people."""

    async def keep(self, commit: str) -> None:
        pass

    async def facts(self, commit: str, path: str | None = None) -> CommitFacts:
        return CommitFacts(commit, "Ann", "a change")


class MemoryRepository(GitSource):
    """A GitSource whose repository is ``files``; all that it decides and does is its own."""

    files: dict[str, dict[str, int]]
    commits = 0

    async def _arrive(self, spec: GitSourceSpec) -> tuple[Remote, str]:
        commit = f"{self.commits:040x}"
        return Remote("main", "refs/tags/none", commit), commit

    async def _tree(self, spec: GitSourceSpec, commit: str) -> Tree:
        return Tree({file: tuple(manifest(*one) for one in held.items()) for file, held in self.files.items()}, ())


class Convergence(RuleBasedStateMachine):
    """The daemon with its three sources. ``rest`` lets all of them look until nothing changes any more."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(prefix=f"joblet-test-{os.getpid()}-")
        self.place = Path(self.directory.name)
        (self.place / "spool").mkdir(mode=0o755)
        self.runner = asyncio.Runner(loop_factory=SteppedLoop)
        self.world = World(self.place)
        self.dropped: dict[str, dict[str, int]] = {}
        self.committed: dict[str, dict[str, int]] = {"a.yml": {}, "b.yml": {}}
        self.commits = 0
        self.clients: dict[str, int] = {}  # what a client has applied last, as far as it was let

    def do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    @initialize()
    def boot(self) -> None:
        self.do(self.world.boot())
        self.make_sources()

    def make_sources(self) -> None:
        desired: DesiredJobs = self.world.desired
        directory = self.place / "spool"
        self.spool = Spool(SpoolSettings(str(directory), 30.0, os.getuid()), desired, clock=self.world.clock)
        spec = GitSourceManifest.model_validate(
            {
                "apiVersion": "joblet/v1",
                "kind": "GitSource",
                "metadata": {"name": "fleet"},
                "spec": {"url": "file:///nowhere"},
            }
        ).spec
        given = Settings(
            str(self.place), Contents(self.world.blobs), dict, lambda _: {}, lambda: None, self.world.clock
        )
        self.git = MemoryRepository("fleet", spec, given, desired)
        self.git._mirror = MemoryMirror(f"{self.place}/fleet.git")

    # -- edits --

    @rule(file=st.sampled_from(FILES), held=content.filter(bool))
    def drop(self, file: str, held: dict[str, int]) -> None:
        self.dropped[file] = held
        scratch = self.place / "spool" / f".{file}.tmp"
        scratch.write_text("---\n".join(job(name=name, command=f"[sleep, '{one}']") for name, one in held.items()))
        scratch.chmod(0o644)
        scratch.rename(self.place / "spool" / file)

    @precondition(lambda self: self.dropped)
    @rule(data=st.data())
    def take_out(self, data: st.DataObject) -> None:
        file = data.draw(st.sampled_from(sorted(self.dropped)))
        del self.dropped[file]
        (self.place / "spool" / file).unlink()

    @rule(files=tree)
    def commit(self, files: dict[str, dict[str, int]]) -> None:
        self.committed, self.commits = files, self.commits + 1

    @rule(name=st.sampled_from(JOBS), version=st.integers(1, 3), take_over=st.booleans())
    def apply(self, name: str, version: int, take_over: bool) -> None:
        owner = self.other_owner(name)
        try:
            self.do(self.world.desired.apply([manifest(name, version)], CLIENT, take_over=take_over))
        except OwnershipConflict:
            assert owner and not take_over
        else:
            assert take_over or not owner, f"{name} was taken from {owner} by who may not"
            self.clients[name] = version

    @rule(name=st.sampled_from(JOBS))
    def delete(self, name: str) -> None:
        owner = self.other_owner(name)
        with suppress(OwnershipConflict, NoSuchJob):
            self.do(self.world.desired.delete(JobName(name), source=CLIENT))
            assert not owner, f"{name} was deleted for {owner} by who may not"

    def other_owner(self, name: str) -> str:
        """Who has that job, if it is nobody that a client may speak for."""
        view = self.world.registry.views.get(JobName(name))
        return "" if view is None or view.deleting or view.source.kind == CLIENT.kind else str(view.source)

    # -- looks, at any time --

    @rule()
    def look_into_the_spool(self) -> None:
        self.do(self.spool.sync())

    @rule(take_over=st.booleans())
    def look_at_the_repository(self, take_over: bool) -> None:
        self.do(self.look(Wishes(allow_delete=True, take_over=take_over)))

    async def look(self, wishes: Wishes) -> None:
        self.git.files, self.git.commits = self.committed, self.commits
        asked = asyncio.create_task(self.git.sync(wishes))
        await asyncio.sleep(0)
        following = asyncio.create_task(self.git.run())
        await asked
        following.cancel()
        await asyncio.wait([following])
        assert self.git.fault is None or self.git.fault.reason == "Conflict", str(self.git.fault)

    @rule(seconds=st.sampled_from((0.1, 1.0)))
    def let_time_pass(self, seconds: float) -> None:
        self.do(self.world.advance(seconds))

    @rule()
    def die_and_come_back(self) -> None:
        self.do(self.world.restart())
        self.make_sources()

    # -- what holds --

    @rule()
    def rest(self) -> None:
        """Whatever has happened: it comes to rest, and then everything is as one of those who may say so says."""
        self.do(self.come_to_rest(Wishes(allow_delete=True)))
        self.check_declared()
        self.check_host()

    def check_declared(self) -> None:
        """Each job is as its owner declares it, and each that is declared is there."""
        spool_says = {(job, file): one for file, held in self.dropped.items() for job, one in held.items()}
        git_says = {(job, file): one for file, held in self.committed.items() for job, one in held.items()}
        for name in JOBS:
            view = self.world.registry.views.get(JobName(name))
            declared = [one for one, _ in (*spool_says, *git_says) if one == name]
            if view is None:
                assert not declared, f"{name} is declared, and not there"
                continue
            says = {"spool": spool_says, "git": git_says}.get(view.source.kind)
            version = self.clients.get(name) if says is None else says.get((name, view.source.file))
            assert version is not None, f"{name} belongs to {view.source}, which does not declare it"
            assert view.manifest == manifest(name, version)

    async def come_to_rest(self, wishes: Wishes) -> None:
        before: object = None
        for _ in range(8):
            await self.spool.sync()
            await self.look(wishes)
            await self.world.advance(1.0)
            now = self.state()
            if now == before:
                return
            before = now
        raise AssertionError(f"it does not come to rest: {before}")

    def state(self) -> dict[str, tuple[str, int, str]]:
        return {
            name: (str(view.source), view.generation, manifest_to_json(view.manifest))
            for name, view in self.world.registry.views.items()
        }

    def check_host(self) -> None:
        """What runs is what is declared, each once."""
        live = sorted(
            (one.request.manifest.metadata.name, one.request.manifest.spec.command) for one in self.world.host.live()
        )
        declared = sorted((name, view.manifest.spec.command) for name, view in self.world.registry.views.items())
        assert live == declared

    @invariant()
    def nothing_runs_twice(self) -> None:
        assert self.world.host.broken_promises == []

    def teardown(self) -> None:
        """It comes to rest; then all let go but the repository: from any history it is the same state."""
        try:
            if hasattr(self, "git"):
                self.do(self.come_to_rest(Wishes(allow_delete=True)))
                self.check_declared()
                for path in (self.place / "spool").glob("*.yml"):
                    path.unlink()
                self.dropped = {}
                self.do(self.come_to_rest(Wishes(allow_delete=True, take_over=True)))
                for name, view in list(self.world.registry.views.items()):
                    if view.source.kind == "grpc":
                        self.do(self.world.desired.delete(name, source=CLIENT))
                self.do(self.come_to_rest(Wishes(allow_delete=True)))
                says = {name: (file, one) for file, held in self.committed.items() for name, one in held.items()}
                assert {
                    name: (view.source.file, view.manifest) for name, view in self.world.registry.views.items()
                } == {name: (file, manifest(name, one)) for name, (file, one) in says.items()}
                self.check_host()
                self.do(self.world.crash())
        finally:
            self.runner.close()
            self.directory.cleanup()


Convergence.TestCase.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestAnyInterleavingOfEditsInThreeSourcesConvergesToTheSameState = Convergence.TestCase
