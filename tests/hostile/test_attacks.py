"""Every attack in attacks/ fails, and the host and the victim beside it are as they were."""

from __future__ import annotations

import time

import pytest

from tests.hostile.attack import Attack, attacks, verdict_of
from tests.hostile.attempts import FILTER
from tests.hostile.meanwhile import MEANWHILE
from tests.hostile.street import Street
from tests.timing import PATIENCE

SILENCE_SECONDS = 5.0  # of a victim that writes ten times a second: wide, as machines of tests are


@pytest.mark.parametrize("attack", attacks(), ids=lambda attack: attack.path.stem)
def test_an_attack_fails_and_harms_nobody(street: Street, attack: Attack) -> None:
    state = street.state()
    begin_ns = time.time_ns()
    street.attack(attack)
    MEANWHILE[attack.meanwhile](street, attack)
    run = street.host.finished(attack.name, within=60)

    output = street.host.log(attack.name, stream="")
    verdict = verdict_of(output[-1 << 20 :].decode(errors="replace"))
    print("\n".join(f"held {name}: {why}" for name, why in verdict.held.items()))
    assert not verdict.broke
    if "from attempts import" in attack.document["spec"].get("script", ""):
        assert output.startswith(f"{FILTER}2\n".encode()) or len(output) > 1 << 20
    assert (run.phase, run.reason or "") == (attack.phase, attack.reason or run.reason), (run, output[-2000:])
    assert verdict.held.keys() == (attack.attempts.keys() if attack.phase == "COMPLETED" else set()), output[-2000:]
    assert street.secret.encode() not in output

    street.victim_is_well()
    assert street.longest_silence_seconds(begin_ns) < SILENCE_SECONDS * PATIENCE
    street.is_as_before(state, without=attack.name)


def test_what_is_left_of_a_job_would_be_seen(street: Street) -> None:
    left = "\n".join(street.left_of("victim"))
    assert " script " in left
    assert "/job-victim-" in left
