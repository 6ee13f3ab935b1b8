"""The daemon before requests, bytes and connections that no client of ours would make."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.fuzz.connections import QUIET, flood
from tests.faults.fuzz.requests import fuzz_requests
from tests.integration.host import Host, job_host
from tests.timing import PATIENCE

pytestmark = pytest.mark.timeout(120)
REQUEST_SECONDS = 5.0
CONNECTIONS = 300


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host() as host:
        host.apply(QUIET)
        host.finished("quiet")
        yield host


def resident_bytes(host: Host) -> int:
    assert host.daemon is not None
    status = Path(f"/proc/{host.daemon.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def test_every_method_answers_whatever_it_is_asked_with_a_status_of_ours(host: Host) -> None:
    before = resident_bytes(host)
    answers = fuzz_requests(host, seed="ci", seconds=REQUEST_SECONDS)
    assert not answers.defects, "\n".join([*answers.defects[:10], host.log_tail()])
    assert answers.codes["RESOURCE_EXHAUSTED"] == 1 and answers.codes["INVALID_ARGUMENT"] and answers.codes["OK"]
    assert "unexpected error" not in (host.root / "daemon.log").read_text()
    assert resident_bytes(host) - before < 256 << 20


def test_connections_of_every_bad_kind_neither_stop_nor_fill_the_daemon(host: Host) -> None:
    before = resident_bytes(host)
    flooded = flood(host, seed="ci", connections=CONNECTIONS)
    assert flooded.worst_answer_seconds < 20 * PATIENCE, flooded
    assert flooded.refused_at_once < CONNECTIONS // 10, flooded  # or most of them would have done nothing
    assert resident_bytes(host) - before < 128 << 20, flooded
    assert flooded.descriptors_after <= flooded.descriptors_before + 8, flooded
