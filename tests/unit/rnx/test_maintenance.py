"""``rnx cordon``, ``uncordon`` and ``drain`` against a daemon with canned answers."""

from __future__ import annotations

import json

from joblet.api.v1 import node_pb2
from tests.unit.rnx.conftest import Rnx
from tests.unit.rnx.service import Answers


def test_a_cordoned_node_is_shown_as_such(rnx: Rnx, answers: Answers) -> None:
    assert rnx("cordon", "--reason", "new disk").out == "cordoned\n"
    (request,) = answers.asked(node_pb2.CordonRequest)
    assert request.reason == "new disk"
    assert rnx("nodes").out.splitlines()[1].split()[2] == "cordoned"
    cordon = json.loads(rnx("nodes", "--json").out)[0]["node"]["cordon"]
    assert cordon == {"since": None, "by": "anna", "reason": "new disk"}
    assert rnx("uncordon").out == "uncordoned\n"
    assert rnx("uncordon").out == "was not cordoned\n"
    assert rnx("nodes").out.splitlines()[1].split()[2] == "ready"


def test_a_drain_waits_for_the_end_and_says_what_becomes_of_the_daemon(rnx: Rnx, answers: Answers) -> None:
    answers.drain = [node_pb2.DrainProgress(running=1, jobs=["a"]), node_pb2.DrainProgress(queued=2, done=True)]
    said = rnx("drain", "--reason", "upgrade")
    assert (said.code, said.out) == (0, "drained; 2 wait until the node launches again; the daemon ends\n")
    assert rnx("drain", "--stay").out.endswith("the daemon stays, cordoned\n")
    first, second = answers.asked(node_pb2.DrainRequest)
    assert (first.reason, first.stay, second.stay) == ("upgrade", False, True)


def test_a_drain_that_takes_too_long_says_what_runs_and_that_nothing_is_undone(rnx: Rnx, answers: Answers) -> None:
    answers.drain = [node_pb2.DrainProgress(running=2, jobs=["a", "b"])]
    said = rnx("drain", "--timeout", "300ms")
    assert said.code == 124
    assert "2 running: a, b" in said.err
    assert "stays cordoned" in said.err
