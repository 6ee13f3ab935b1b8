"""The attacks as data: complete, bounded so that a failing defence does no harm, and all of them in the table."""

from __future__ import annotations

import pytest

from joblet.manifest import read_manifests
from joblet.manifest.models import JobSpec
from tests.hostile.attack import Attack, attacks, verdict_of
from tests.hostile.meanwhile import MEANWHILE
from tests.hostile.refusal import refusals
from tests.hostile.table import DOCUMENT, table, written

TARGETS = ("ROOT", "DIRECTORY", "CANARY", "SECRET", "TCP", "TCP6", "SOCKET", "ABSTRACT", "GRPC", "GRPC_SOCKET", "PIDS")
every_attack = pytest.mark.parametrize("attack", attacks(), ids=lambda attack: attack.path.stem)


@every_attack
def test_an_attack_is_a_good_manifest_with_bounds(attack: Attack) -> None:
    (manifest,) = read_manifests(attack.manifest(dict.fromkeys(TARGETS, "1")).encode(), filename=attack.path.name)
    spec = manifest.spec
    assert isinstance(spec, JobSpec)
    assert attack.path.stem == manifest.metadata.name
    assert spec.limits.memory_bytes is not None and spec.limits.memory_bytes <= 128 << 20
    assert spec.limits.pids is not None and spec.limits.pids <= 64
    assert spec.limits.logs_bytes <= 8 << 20
    assert spec.timeout_seconds is not None and spec.timeout_seconds <= 60


@every_attack
def test_an_attack_says_what_it_tries_and_what_is_looked_at(attack: Attack) -> None:
    assert attack.summary and attack.attempts
    assert attack.meanwhile in MEANWHILE
    if attack.phase == "COMPLETED":
        script = str(attack.document["spec"]["script"])
        assert not [name for name in attack.attempts if f'"{name}"' not in script]
    else:
        assert len(attack.attempts) == 1, "an end by force proves one thing"


def test_no_two_attempts_have_one_name() -> None:
    names = [name for attack in attacks() for name in attack.attempts] + [refusal.name for refusal in refusals()]
    assert len(names) == len(set(names)), sorted({name for name in names if names.count(name) > 1})


def test_every_attack_is_in_the_table_with_what_stops_it() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert written(text) == text, "run python -m tests.hostile.table"
    assert all(f"| {name} | {why} |" in table() for attack in attacks() for name, why in attack.attempts.items())


def test_what_a_script_says_is_told_apart() -> None:
    verdict = verdict_of("HELD a: EPERM (no)\nnoise\nBROKE b: returned 0\n BROKE c: not at the line's beginning\n")
    assert (verdict.held, verdict.broke) == ({"a": "EPERM (no)"}, {"b": "returned 0"})
