"""What a manifest may ask for is what the configuration names, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from joblet.config.server import IsolationSection
from joblet.manifest import JobManifest
from jobletd.policy import NotAllowed, Policy
from tests.unit.reconciler.world import CLIENT, World, manifests, play
from tests.unit.reconciler.world import job as manifest_text


def job(**isolation: Any) -> JobManifest:
    spec = {"command": ["true"], "isolation": isolation}
    return JobManifest.model_validate(
        {"apiVersion": "joblet/v1", "kind": "Job", "metadata": {"name": "one"}, "spec": spec}
    )


def policy(**config: Any) -> Policy:
    return Policy.of(IsolationSection.model_validate(config))


def refusal(policy: Policy, **isolation: Any) -> NotAllowed:
    with pytest.raises(NotAllowed) as refused:
        policy.check(job(**isolation))
    return refused.value


def test_a_plain_job_is_allowed_everywhere() -> None:
    policy().check(job())
    policy().check(job(user=1000, group=100, seccomp="strict"))


@pytest.mark.parametrize(
    ("isolation", "place", "key"),
    [
        ({"network": "host"}, "spec.isolation.network", "isolation.allowHostNetwork"),
        ({"capabilities": ["CHOWN"]}, "spec.isolation.capabilities", "isolation.allowedCapabilities"),
        ({"upkeep": ["rotate"]}, "spec.isolation.upkeep", "isolation.allowedUpkeep"),
        ({"seccomp": "unconfined"}, "spec.isolation.seccomp", "isolation.allowUnconfined"),
        ({"seccomp": "/p.json"}, "spec.isolation.seccomp", "isolation.seccompProfiles"),
        ({"rootfs": "/"}, "spec.isolation.rootfs", "isolation.rootfsImages"),
    ],
)
def test_what_the_configuration_does_not_name_is_refused_with_place_and_key(
    isolation: dict[str, Any], place: str, key: str
) -> None:
    refused = refusal(policy(), **isolation)
    assert [problem.path for problem in refused.problems] == [place]
    assert str(refused).startswith(f"job one: {place}: ") and key in str(refused)


def test_all_that_is_not_allowed_is_told_at_once() -> None:
    refused = refusal(policy(), network="host", capabilities=["CHOWN", "FOWNER"], seccomp="unconfined")
    assert [problem.path.rpartition(".")[2] for problem in refused.problems] == ["network", "capabilities", "seccomp"]
    assert "CHOWN, FOWNER are not allowed" in str(refused)


def test_what_it_names_is_allowed() -> None:
    open_policy = policy(allowedCapabilities=["CHOWN", "NET_RAW"], allowHostNetwork=True, allowUnconfined=True)
    open_policy.check(job(network="host", capabilities=["CHOWN"], seccomp="unconfined"))
    assert "SYS_ADMIN is not allowed" in str(refusal(open_policy, capabilities=["CHOWN", "SYS_ADMIN"]))


@pytest.mark.parametrize(("field", "key"), [("seccomp", "seccompProfiles"), ("rootfs", "rootfsImages")])
def test_a_path_counts_only_below_its_directory_wherever_links_lead(field: str, key: str, tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "inside-not"
    for directory in (inside, outside):
        directory.mkdir()
        (directory / "file").write_text("{}")
    (inside / "link").symlink_to(outside / "file")
    bounded = policy(**{key: str(inside)})
    bounded.check(job(**{field: str(inside / "file")}))
    for path in (outside / "file", inside / "link", inside):
        assert f"does not lie below {inside}" in str(refusal(bounded, **{field: str(path)}))
    assert "is not there" in str(refusal(bounded, **{field: str(inside / "missing")}))


def test_a_refused_manifest_changes_nothing_of_its_job_nor_of_those_beside_it(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.apply(manifest_text(name="good"))
        both = manifest_text(name="beside") + "---\n" + manifest_text("isolation: {network: host}", name="good")
        with pytest.raises(NotAllowed, match=r"spec\.isolation\.network"):
            await world.desired.apply(manifests(both), CLIENT)
        await world.settle()
        assert {name: view.generation for name, view in world.registry.views.items()} == {"good": 1}

    play(scenario, world)
