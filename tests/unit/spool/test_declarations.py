"""What is decided bit by bit is what is decided at once from the same, whatever changed in which order."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from jobletd.model import JobName, Source
from jobletd.sources.declarations import Declarations, Standing
from jobletd.sources.ownership import Claim, Plan, make_plan
from jobletd.sources.spool import SCOPE, spool_source

FILES = ("a.yml", "b.yml", "c.yml", "d.yml")
JOBS = tuple(map(JobName, ("u", "v", "x", "y", "z")))
OWNERS = (
    None,
    Source("grpc", "ann"),
    Source("git", "fleet@1a2b:a.yml"),
    *map(spool_source, (*FILES, "never-seen.yml")),
)


class Stands(NamedTuple):
    """A file is not good any more."""

    file: str
    standing: Standing


class Belongs(NamedTuple):
    """A job has another owner, or none."""

    job: JobName
    owner: Source | None


class Do(Enum):
    """What the spool does."""

    DECIDE = "decide"
    ACT = "act"


Step = Claim | Stands | Belongs | Do
files = st.sampled_from(FILES)
claims = st.builds(
    lambda file, jobs, mtime_ns: Claim(file, tuple(jobs), (mtime_ns, file)),
    files,
    st.lists(st.sampled_from(JOBS), unique=True, max_size=4),
    st.integers(0, 2),
)
standings = st.builds(Stands, files, st.sampled_from(Standing))
owned = st.builds(Belongs, st.sampled_from(JOBS), st.sampled_from(OWNERS))
steps = st.lists(st.one_of(claims, standings, owned, st.sampled_from(Do)), max_size=40)


@dataclass
class World:
    """The same told to both. standing: of the files that are not good."""

    declarations: Declarations = field(default_factory=lambda: Declarations(SCOPE))
    claims: dict[str, Claim] = field(default_factory=dict)
    standing: dict[str, Standing] = field(default_factory=dict)
    owners: dict[JobName, Source] = field(default_factory=dict)
    owned: dict[str, frozenset[JobName]] = field(default_factory=dict)  # as of the last plan

    def put_file(self, file: str, what: Claim | Standing) -> None:
        self.declarations.put_file(file, what)
        self.claims.pop(file, None)
        self.standing.pop(file, None)
        if isinstance(what, Claim):
            self.claims[file] = what
        else:
            self.standing[file] = what

    def put_owner(self, job: JobName, owner: Source | None) -> None:
        self.declarations.put_owner(job, owner)
        self.owners.pop(job, None)
        if owner is not None:
            self.owners[job] = owner

    def decided(self) -> Plan:
        """The plan, which is the same as one from nothing; and whose files are named that have other jobs than before."""
        plan = self.declarations.plan()
        assert what_of(plan) == what_of(self.from_nothing())
        now = {file: frozenset(jobs) for file, jobs in plan.owned.items()}
        different = {file for file in now.keys() | self.owned.keys() if now.get(file) != self.owned.get(file)}
        assert different <= self.declarations.take_changed()
        self.owned = now
        return plan

    def from_nothing(self) -> Plan:
        unknown, leaving = (
            {file for file, standing in self.standing.items() if standing is wanted}
            for wanted in (Standing.UNKNOWN, Standing.LEAVING)
        )
        return make_plan(SCOPE, self.claims.values(), self.owners, unknown=unknown, leaving=leaving)

    def act(self) -> None:
        """What the spool does with its plan, as far as owners are concerned."""
        plan = self.decided()
        for job, _, new in plan.transfers:
            self.put_owner(job, new)
        for file, jobs in list(plan.owned.items()):
            for job in jobs:
                self.put_owner(job, spool_source(file))
        for job, _ in plan.deletes:
            self.put_owner(job, None)


def what_of(plan: Plan) -> tuple[object, ...]:
    """Without the order, which says nothing."""
    return (
        set(plan.transfers),
        {file: set(jobs) for file, jobs in plan.owned.items()},
        set(plan.deletes),
        set(plan.conflicts),
        set(plan.waiting),
    )


@given(steps)
def test_any_series_of_changes_comes_to_the_same_plan_as_one_from_nothing(told: list[Step]) -> None:
    world = World()
    for step in told:
        match step:
            case Claim():
                world.put_file(step.file, step)
            case Stands():
                world.put_file(*step)
            case Belongs():
                world.put_owner(*step)
            case Do.DECIDE:
                world.decided()
            case Do.ACT:
                world.act()
    for file in FILES:
        belongs = {job for job, owner in world.owners.items() if owner == spool_source(file)}
        assert world.declarations.jobs_of(file) == belongs
    world.act()
    world.act()
    at_rest = world.decided()
    assert not at_rest.transfers and not at_rest.deletes


def test_a_change_is_decided_about_without_the_other_files() -> None:
    asked: list[str] = []

    class Noted(type(SCOPE)):  # type: ignore[misc]
        def file_of(self, owner: Source) -> str | None:
            asked.append(owner.name)
            return super().file_of(owner)  # type: ignore[no-any-return]

    declarations = Declarations(Noted())
    for number in range(1000):
        file, job = f"{number}.yml", JobName(f"job-{number}")
        declarations.put_file(file, Claim(file, (job,), (0, file)))
        declarations.put_owner(job, spool_source(file))
    declarations.plan()
    declarations.take_changed()
    asked.clear()
    declarations.put_file("7.yml", Claim("7.yml", (JobName("job-7"),), (1, "7.yml")))
    declarations.plan()
    assert set(asked) <= {"7.yml"} and declarations.take_changed() == {"7.yml"}
