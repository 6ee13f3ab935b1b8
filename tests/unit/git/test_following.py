"""A GitSource follows its repository: one commit, whole or not at all."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from jobletd.model import JobName, Source
from jobletd.sources.git.applied import Applied, load_applied, save_applied
from jobletd.sources.git.source import Wishes
from tests.git_repository import Repository, job
from tests.unit.git.followed import Followed

BROKEN = "apiVersion: joblet/v1\nkind: Job\nmetadata: {name: b}\nspec: {comand: [x]}\n"


def test_every_job_says_its_commit_and_file_and_keeps_them_until_it_changes(
    repository: Repository, followed: Followed
) -> None:
    first = repository.commit({"jobs/a.yml": job("a"), "b.yaml": job("b")})
    followed.look_well()
    assert followed.jobs == {"a": f"git:fleet@{first[:12]}:jobs/a.yml", "b": f"git:fleet@{first[:12]}:b.yaml"}
    applied = followed.source.applied
    assert applied is not None and (applied.revision, applied.label, applied.manifests) == (first, "main", 2)


def test_one_invalid_manifest_leaves_the_last_good_commit_in_force_and_names_file_line_and_author(
    repository: Repository, followed: Followed
) -> None:
    first = repository.commit({"a.yml": job("a"), "b.yml": job("b")})
    followed.look_well()
    bad = repository.commit({"a.yml": job("a", "[other]"), "b.yml": BROKEN}, author="Bob <bob@example.org>")
    repository.commit({"README": "later, by somebody else"})
    fault = followed.look()
    assert fault is not None and fault.reason == "InvalidManifest"
    for word in ("b.yml:4:", "comand", bad[:12], "Bob <bob@example.org>", f"{first[:12]} stays in force"):
        assert word in str(fault)
    assert followed.desired.generation("a") == followed.desired.generation("b") == 1
    assert followed.condition("b", "Valid") == "False"
    repository.commit({"b.yml": job("b")})
    followed.look_well()
    assert followed.condition("b", "Valid") == "True"
    assert followed.desired.generation("a") == 2


def test_a_commit_that_the_host_refuses_changes_nothing(repository: Repository, followed: Followed) -> None:
    repository.commit({"a.yml": job("a")})
    followed.desired.refuse = "the host's network is not allowed on this host"
    fault = followed.look()
    assert fault is not None and fault.reason == "NotApplied" and "a.yml: the host's network" in str(fault)
    assert followed.jobs == {}


def test_pruning_goes_down_to_the_last_object(repository: Repository, followed: Followed) -> None:
    """kubectl#555, kustomize-controller#187: what was pruned by could not remove the last one."""
    repository.commit({"a.yml": job("a"), "b.yml": job("b"), "c.yml": job("c"), "README": ""})
    followed.look_well()
    repository.remove("a.yml")
    repository.commit()
    followed.look_well()
    assert set(followed.jobs) == {"b", "c"}
    repository.remove("b.yml")
    repository.commit()
    followed.look_well()
    repository.remove("c.yml")
    repository.commit()
    followed.look_well()
    assert followed.jobs == {}


def test_an_accidental_wipe_is_held_back_and_an_intended_one_let_through(
    repository: Repository, followed: Followed
) -> None:
    """argo-cd#3484, #10987: everything went by mistake; or a guard stood in the way of what was meant."""
    names = [f"j{number}" for number in range(4)]
    repository.commit({**{f"{name}.yml": job(name) for name in names}, "README": ""})
    followed.look_well()
    repository.remove("j0.yml", "j1.yml", "j2.yml")
    repository.commit({"new.yml": job("new")})
    fault = followed.look()
    assert fault is not None and fault.reason == "DeletionGuard"
    assert "removes 3 of 4, more than 50 %" in str(fault) and "rnx sync fleet --allow-delete" in str(fault)
    assert set(followed.jobs) == set(names), "nothing of that commit is applied"
    followed.look_well(Wishes(allow_delete=True))
    assert set(followed.jobs) == {"j3", "new"}


def test_without_pruning_what_is_gone_stays_and_is_counted(repository: Repository, followed: Followed) -> None:
    followed.set(prune=False)
    repository.commit({"a.yml": job("a"), "b.yml": job("b"), "README": ""})
    followed.look_well()
    repository.remove("a.yml", "b.yml")
    repository.commit()
    followed.look_well()
    assert set(followed.jobs) == {"a", "b"} and followed.source.kept == {"a", "b"}
    followed.set(prune=True)
    fault = followed.look()
    assert fault is not None and fault.reason == "DeletionGuard"


def test_a_job_that_another_source_owns_is_a_conflict_and_the_rest_is_applied(
    repository: Repository, followed: Followed
) -> None:
    repository.commit({"a.yml": job("a"), "b.yml": job("b")})
    followed.look_well()
    followed.give("a", Source("spool", "a.yml"))
    fault = followed.look()
    assert fault is not None and fault.reason == "Conflict"
    assert "a in a.yml belongs to spool:a.yml" in str(fault)
    assert followed.condition("a", "Conflict") == "True"
    repository.commit({"a.yml": job("a", "[other]"), "b.yml": job("b", "[other]")})
    followed.look()
    assert (followed.desired.generation("a"), followed.desired.generation("b")) == (1, 2)
    followed.look_well(Wishes(take_over=True))
    assert followed.jobs["a"].startswith("git:fleet@") and followed.desired.generation("a") == 2
    assert followed.condition("a", "Conflict") == "False"


def test_a_job_that_its_owner_lets_go_is_handed_to_the_repository_that_claims_it(
    repository: Repository, followed: Followed
) -> None:
    commit = repository.commit({"a.yml": job("a"), "b.yml": job("b")})
    followed.look_well()
    followed.give("a", Source("spool", "a.yml"))
    followed.look()
    heir = asyncio.run(followed.desired.heir(JobName("a"), Source("spool", "a.yml")))
    assert str(heir) == f"git:fleet@{commit[:12]}:a.yml"
    assert heir is not None
    followed.give("a", heir)
    before = len(followed.desired.applies)
    followed.look_well()
    assert len(followed.desired.applies) == before + 1, "it may differ from what the commit says"
    assert asyncio.run(followed.desired.heir(JobName("a"), Source("spool", "a.yml"))) is None


def test_a_job_that_the_repository_lets_go_is_handed_to_who_claims_it(
    repository: Repository, followed: Followed
) -> None:
    repository.commit({"a.yml": job("a"), "b.yml": job("b")})
    followed.look_well()
    asyncio.run(followed.desired.claim("root", {JobName("a"): Source("spool", "a.yml")}))
    repository.remove("a.yml")
    repository.commit()
    followed.look_well()
    assert followed.jobs["a"] == "spool:a.yml" and followed.desired.generation("a") == 1


def test_a_job_that_moves_to_another_file_stays_the_same(repository: Repository, followed: Followed) -> None:
    repository.commit({"a.yml": job("a"), "b.yml": job("b")})
    followed.look_well()
    repository.run("mv", "a.yml", "c.yml")
    commit = repository.commit()
    followed.look_well()
    assert followed.jobs["a"] == f"git:fleet@{commit[:12]}:c.yml" and followed.desired.generation("a") == 1


def test_a_rewritten_history_is_followed_and_said(repository: Repository, followed: Followed) -> None:
    repository.commit({"a.yml": job("a")})
    old = repository.commit({"a.yml": job("a", "[second]")})
    followed.look_well()
    new = repository.commit({"a.yml": job("a", "[third]")}, "--amend")
    followed.look_well()
    told = [message for _, reason, message in followed.desired.events if reason == "HistoryRewritten"]
    assert len(told) == 1 and old[:12] in told[0] and new[:12] in told[0]
    assert followed.desired.generation("a") == 2


def test_a_repository_that_disappears_changes_nothing_and_is_followed_when_it_is_back(
    repository: Repository, followed: Followed
) -> None:
    commit = repository.commit({"a.yml": job("a")})
    followed.look_well()
    hidden = repository.origin.rename(repository.origin.with_suffix(".away"))
    fault = followed.look()
    assert fault is not None and fault.reason == "NotSynced"
    assert "does not appear to be a git repository" in str(fault) and f"{commit[:12]} stays in force" in str(fault)
    assert set(followed.jobs) == {"a"}
    hidden.rename(repository.origin)
    followed.look_well()


def test_a_daemon_that_starts_anew_knows_what_is_in_force_though_the_repository_is_away(
    repository: Repository, followed: Followed
) -> None:
    commit = repository.commit({"a.yml": job("a")})
    followed.look_well()
    repository.origin.rename(repository.origin.with_suffix(".away"))
    followed.source = followed.make()
    assert followed.look() is not None
    assert followed.source.applied is not None and followed.source.applied.revision == commit
    assert set(followed.jobs) == {"a"}


def test_a_damaged_mirror_is_made_anew(repository: Repository, followed: Followed) -> None:
    repository.commit({"a.yml": job("a")})
    followed.look_well()
    for path in (followed.mirrors / "fleet.git/objects").rglob("*"):
        if path.is_file():
            path.chmod(0o600)
            path.write_bytes(b"")
    followed.source = followed.make()
    repository.commit({"a.yml": job("a", "[other]")})
    assert followed.look() is not None
    followed.look_well()
    assert followed.desired.generation("a") == 2


def test_a_job_stopped_by_hand_is_set_right_or_shown_or_left(repository: Repository, followed: Followed) -> None:
    repository.commit({"a.yml": job("a")})
    followed.look_well()
    (name,) = followed.desired.jobs
    followed.set(drift="ignore")
    followed.desired.stopped.add(name)
    followed.look_well()
    assert followed.desired.triggered == [] and not followed.source.drifted
    followed.set(drift="report")
    followed.look_well()
    assert followed.desired.triggered == [] and followed.source.drifted == {name}
    assert followed.condition(name, "Drifted") == "True"
    followed.set(drift="correct")
    followed.look_well()
    assert followed.desired.triggered == ["a"]
    assert followed.condition(name, "Drifted") == "False"


def test_a_job_that_went_away_otherwise_comes_back_only_if_drift_is_corrected(
    repository: Repository, followed: Followed
) -> None:
    repository.commit({"a.yml": job("a")})
    followed.set(drift="report")
    followed.look_well()
    followed.desired.jobs.clear()
    followed.look_well()
    assert followed.jobs == {}
    followed.set(drift="correct")
    followed.look_well()
    assert set(followed.jobs) == {"a"}


def test_what_is_in_force_is_set_right_though_the_newest_commit_is_refused(
    repository: Repository, followed: Followed
) -> None:
    repository.commit({"a.yml": job("a")})
    followed.look_well()
    repository.commit({"b.yml": BROKEN})
    followed.desired.stopped.update(followed.desired.jobs)
    assert followed.look() is not None
    assert followed.desired.triggered == ["a"]


def test_a_fault_that_was_mended_while_no_daemon_ran_is_not_told_any_longer(
    repository: Repository, followed: Followed
) -> None:
    repository.commit({"a.yml": job("a"), "b.yml": job("b")})
    followed.look_well()
    followed.give("a", Source("spool", "a.yml"))
    repository.commit({"b.yml": BROKEN})
    followed.look()
    repository.commit({"b.yml": job("b")})
    followed.look()
    assert followed.condition("a", "Conflict") == "True"
    repository.commit({"b.yml": BROKEN})
    followed.look()
    assert followed.condition("b", "Valid") == "False"
    repository.remove("a.yml")
    repository.commit({"b.yml": job("b")})
    followed.source = followed.make()
    followed.look_well()
    assert followed.condition("a", "Conflict") == "False"
    assert followed.condition("b", "Valid") == "True"


def test_a_look_without_changes_applies_nothing(repository: Repository, followed: Followed) -> None:
    repository.commit({"a.yml": job("a")})
    followed.look_well()
    before = len(followed.desired.applies)
    for _ in range(3):
        followed.look_well()
    assert len(followed.desired.applies) == before and followed.changes <= 2


def test_a_commit_that_only_spells_the_same_differently_changes_nothing(
    repository: Repository, followed: Followed
) -> None:
    """nomad#8559, #2551: a plan showed changes that were none."""
    text = job("a").replace("spec: {", "spec: {timeout: 90s, ")
    first = repository.commit({"a.yml": text})
    followed.look_well()
    repository.commit(
        {"a.yml": f"# a comment\n{text}".replace("90s", "1m30s").replace("timeout", "suspend: false, timeout")}
    )
    followed.look_well()
    assert followed.desired.generation("a") == 1 and followed.jobs["a"] == f"git:fleet@{first[:12]}:a.yml"


def test_a_suspended_source_is_not_looked_at(repository: Repository, followed: Followed) -> None:
    repository.commit({"a.yml": job("a")})
    followed.look_well()
    followed.set(suspend=True)
    repository.commit({"a.yml": job("a", "[other]")})

    async def run() -> None:
        task = asyncio.create_task(followed.source.run())
        while followed.source.fault is None:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(run())
    assert followed.source.fault is not None and followed.source.fault.reason == "Suspended"
    assert followed.desired.generation("a") == 1


@pytest.mark.parametrize(
    "change", [{"revision": 5}, {"manifests": "3"}, {"label": None}, {"author": "\ud800"}, {"more": 1}, []]
)
def test_a_damaged_note_of_what_is_in_force_is_none(tmp_path: Path, change: dict[str, object] | list[object]) -> None:
    path = tmp_path / "fleet.json"
    good = Applied("0" * 40, "main", ".", "Ann <a@example.org>", "A change", 3)
    save_applied(str(path), good)
    assert load_applied(str(path)) == good
    path.write_text(json.dumps({**asdict(good), **change} if isinstance(change, dict) else change))
    assert load_applied(str(path)) is None


def test_a_host_that_is_not_meant_follows_nothing_and_one_that_is_no_longer_meant_lets_go_guarded(
    repository: Repository, followed: Followed
) -> None:
    repository.commit({"a.yml": job("a"), "b.yml": job("b")})
    followed.set(nodeSelector={"role": "web", "site": "fra"})
    followed.labels = {"role": "web"}
    followed.look_well()
    assert (followed.jobs, followed.source.selected) == ({}, False)
    followed.labels = {"role": "web", "site": "fra", "more": "x"}
    followed.look_well()
    assert (set(followed.jobs), followed.source.selected) == ({"a", "b"}, True)
    followed.labels = {"role": "wbe", "site": "fra"}
    fault = followed.look()
    assert fault is not None and fault.reason == "DeletionGuard" and "removes 2 of 2" in str(fault)
    assert set(followed.jobs) == {"a", "b"}, "a slip in a label stops nothing"
    followed.look_well(Wishes(allow_delete=True))
    assert followed.jobs == {} and followed.source.applied is None
    followed.labels = {"role": "web", "site": "fra"}
    followed.look_well()
    assert set(followed.jobs) == {"a", "b"}


def test_without_pruning_a_host_that_is_no_longer_meant_keeps_what_it_has(
    repository: Repository, followed: Followed
) -> None:
    repository.commit({"a.yml": job("a"), "b.yml": job("b")})
    followed.set(prune=False)
    followed.look_well()
    followed.set(nodeSelector={"role": "web"})
    followed.look_well()
    assert set(followed.jobs) == {"a", "b"} == followed.source.kept
