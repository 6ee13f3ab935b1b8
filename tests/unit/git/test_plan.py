"""The plan that spool and git share: whatever is edited in which order, it comes to rest, and each job has one owner."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from jobletd.model import JobName, Source
from jobletd.sources.git.scope import GitScope
from jobletd.sources.ownership import Claim, Scope, make_plan
from jobletd.sources.spool import SCOPE

SCOPES: tuple[Scope, ...] = (SCOPE, GitScope("fleet", "1a2b"), GitScope("other", "3c4d"))
FILES, JOBS = ("a.yml", "b.yml"), ("x", "y", "z")
Declared = dict[str, tuple[JobName, ...]]
declared = st.dictionaries(
    st.sampled_from(FILES), st.lists(st.sampled_from(JOBS), unique=True).map(lambda names: tuple(map(JobName, names)))
)
edits = st.lists(st.tuples(st.integers(0, 2), declared, st.booleans()), max_size=8)


def follow(owners: dict[JobName, Source], scope: Scope, files: Declared, *, take_over: bool = False) -> None:
    """What a source does with its plan, as far as owners are concerned."""
    claims = [Claim(file, jobs, (0, file)) for file, jobs in files.items()]
    plan = make_plan(scope, claims, owners, take_over=take_over)
    for job, old, new in plan.transfers:
        assert owners[job] == old
        owners[job] = new
    for file, jobs in plan.owned.items():
        owners.update(dict.fromkeys(jobs, scope.source_of(file)))
    for job, owner in plan.deletes:
        assert owners.pop(job) == owner


def rest(owners: dict[JobName, Source], files: list[Declared], order: Iterable[int]) -> dict[JobName, Source]:
    for _ in range(3):
        for number in order:
            follow(owners, SCOPES[number], files[number])
    return dict(owners)


@given(edits, st.permutations(range(3)))
def test_any_interleaving_of_edits_comes_to_rest_with_one_declaring_owner_each(
    steps: list[tuple[int, Declared, bool]], order: list[int]
) -> None:
    owners: dict[JobName, Source] = {JobName("mine"): Source("grpc", "ann")}
    files: list[Declared] = [{}, {}, {}]
    for number, content, take_over in steps:
        files[number] = content
        follow(owners, SCOPES[number], content, take_over=take_over)
    settled = rest(owners, files, order)
    assert rest(dict(settled), files, order) == settled, "it is at rest"
    declared_by = {
        job: {number for number in range(3) for jobs in files[number].values() if job in jobs} for job in JOBS
    }
    for job in JOBS:
        owner = settled.get(JobName(job))
        if not declared_by[job]:
            assert owner is None
            continue
        assert owner is not None
        (number,) = [number for number in range(3) if SCOPES[number].file_of(owner) is not None]
        file = SCOPES[number].file_of(owner)
        assert file is not None and job in files[number][file]
    assert settled[JobName("mine")] == Source("grpc", "ann"), "what a client owns is nobody else's"
