"""What is put into an attempt's directory before Slurm hears of it, and what is passed on of a service's answers."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from joblet.clock import SystemClock
from joblet.manifest import JobManifest, Probe
from jobletd.executor import AttemptRequest, ExecutorUnavailable, GivenSecrets
from jobletd.executor.slurm.furnishing import NeedsSecrets, NotYet, Unfurnished, drop_unused_contents, furnish
from jobletd.executor.slurm.probe_answers import SILENT_SECONDS, ProbeAnswers
from jobletd.executor.slurm.settings import SlurmSettings
from jobletd.executor.slurm.submission import request_document, script_of
from jobletd.executor.slurm.tracking import Tracked, volume_in_use
from jobletd.executor.slurm_node import probing, sealed_secrets
from jobletd.executor.slurm_node.place import Place
from jobletd.executor.slurm_node.volumes import Holder, claim
from jobletd.model import AttemptId

DATA = b"uploaded"
SHA256 = hashlib.sha256(DATA).hexdigest()
FILES: dict[str, Any] = {"files": [{"path": "a", "sha256": SHA256, "size": len(DATA)}]}
SERVICE: dict[str, Any] = {"restart": "Always", "probe": {"tcp": 80, "interval": "1s", "timeout": "1s"}}


@pytest.fixture
def settings(tmp_path: Path) -> SlurmSettings:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / SHA256).write_bytes(DATA)
    (tmp_path / "shared").mkdir()
    return SlurmSettings(str(tmp_path / "slurm"), str(tmp_path / "shared"), str(tmp_path / "here"))


def tracked(settings: SlurmSettings, number: int = 1, given: GivenSecrets | None = None, **spec: Any) -> Tracked:
    """As it is when it is about to be handed over."""
    document = {"apiVersion": "joblet/v1", "kind": "Job", "metadata": {"name": "a"}}
    manifest = JobManifest.model_validate({**document, "spec": {"command": ["true"], **spec}})
    attempt_id = AttemptId(f"a-b-{number}")
    request = AttemptRequest(attempt_id, "b", number, manifest, None, secrets=given or GivenSecrets())
    found = Tracked(attempt_id, request_document(request, settings, 0), manifest, 0.0, secrets=given)
    os.makedirs(settings.attempt_directory(attempt_id))
    return found


def test_a_content_is_shared_by_all_attempts_and_goes_an_hour_after_the_last(settings: SlurmSettings) -> None:
    ones = [tracked(settings, number, **FILES) for number in (1, 2)]
    for one in ones:
        furnish(settings, one)
        furnish(settings, one)
    paths = [Path(Place(settings.attempt_directory(one.attempt_id)).content(SHA256)) for one in ones]
    assert paths[0].samefile(paths[1]) and paths[0].read_bytes() == DATA
    later = time.time() + 2 * 3600
    assert drop_unused_contents(settings, later) == 0
    for path in paths:
        path.unlink()
    assert drop_unused_contents(settings) == 0
    assert drop_unused_contents(settings, later) == 1


def test_a_content_that_is_not_here_any_more_is_told(settings: SlurmSettings) -> None:
    os.unlink(f"{settings.contents_directory}/{SHA256}")
    with pytest.raises(Unfurnished, match="not on this host"):
        furnish(settings, tracked(settings, **FILES))


def test_a_batch_script_has_the_key_and_no_value(settings: SlurmSettings) -> None:
    given = GivenSecrets({"a": b"hidden"}, {})
    one = tracked(settings, given=given)
    furnish(settings, one)
    key = sealed_secrets.key_in(one.document)
    assert key and "hidden" not in str(one.document) and "hidden" not in repr(one)
    assert "hidden" not in script_of(one.document, ("joblet",))
    lost = replace(one, secrets=None)
    furnish(settings, lost)  # they are sealed already
    assert sealed_secrets.take(Place(settings.attempt_directory(one.attempt_id)), one.attempt_id, key) == given
    with pytest.raises(NeedsSecrets):
        furnish(settings, lost)
    assert sealed_secrets.key_in(tracked(settings, 2).document) == ""


def test_an_attempt_waits_for_the_volume_that_another_one_has(settings: SlurmSettings) -> None:
    uses: dict[str, Any] = {"volumes": [{"name": "data", "path": "/data"}]}
    one, two, other = (tracked(settings, number, **uses) for number in (1, 2, 3))
    assert volume_in_use(two, [one, two]) == ""
    one.job_id = "7"
    assert "attempt a-b-1 has" in volume_in_use(two, [one, two])
    with pytest.raises(Unfurnished, match="volume data"):
        furnish(settings, two)
    os.makedirs(f"{settings.shared_directory}/volumes/data")
    furnish(settings, two)
    claim(f"{settings.shared_directory}/volumes/data", Holder("a-b-1", "n1", "boot"))
    with pytest.raises(NotYet, match="attempt a-b-1 on n1"):
        furnish(settings, other)


class Clock(SystemClock):
    """Stands until it is moved."""

    seconds = 0.0

    def boot_seconds(self) -> float:
        return self.seconds


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(function, *arguments)


def test_each_answer_of_a_service_is_passed_on_once(settings: SlurmSettings) -> None:
    one = tracked(settings, **SERVICE)
    place = Place(settings.attempt_directory(one.attempt_id))
    probe = one.manifest.spec.probe
    assert probe is not None

    def tell(asked: Probe, count: int, told: list[str]) -> None:
        document = {"version": probing.VERSION, "probe": probing.words(asked), "count": count, "answers": told}
        place.write(probing.ANSWERS, document, durable=False)

    async def scene() -> None:
        clock = Clock()
        answers = ProbeAnswers(settings, clock, in_thread)
        assert await answers.new(one, probe) == []
        for count, told, new in (
            (2, ["refused", ""], ["refused", ""]),
            (2, ["refused", ""], []),
            (70, ["a"] * 64, ["a"] * 64),
        ):
            tell(probe, count, told)
            assert await answers.new(one, probe) == new
        clock.seconds = SILENT_SECONDS + 3.5
        with pytest.raises(ExecutorUnavailable, match="told nothing for more than 18 s"):
            await answers.new(one, probe)
        assert place.read(probing.ASKED) is None
        other = Probe.model_validate({"tcp": 81})
        assert await answers.new(one, other) == []  # what its node told is of the probe before
        asked = place.read(probing.ASKED)
        assert asked is not None and Probe.model_validate(asked).tcp == 81
        tell(other, 1, ["refused"])
        assert await answers.new(one, other) == ["refused"]

    asyncio.run(scene())
