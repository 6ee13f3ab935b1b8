"""The launcher before datagrams that are none of the daemon's."""

from __future__ import annotations

import pytest

from tests.faults.fuzz.launcher import fuzz_launcher
from tests.integration.sandbox_attempts import sandboxes

SECONDS = 4.0


@pytest.mark.timeout(120)
def test_the_launcher_answers_whatever_it_is_sent_and_carries_out_the_next_good_spec() -> None:
    with sandboxes() as stage:
        launched = fuzz_launcher(stage, seed="ci", seconds=SECONDS)
    assert not launched.defects, "\n".join(launched.defects)
    assert {"carried out", "no spec", "refused", "not_started"} <= launched.outcomes.keys(), launched.outcomes
