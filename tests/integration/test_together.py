"""What a job may have beside its sandbox works together: a network, a volume, secrets, files, in one job."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.host import Host, job_host
from tests.integration.network_stage import stage

ALL = """
apiVersion: joblet/v1
kind: Volume
metadata: {name: data}
spec: {size: 16Mi}
---
apiVersion: joblet/v1
kind: Secret
metadata: {name: token}
spec: {data: {value: open-sesame}}
---
apiVersion: joblet/v1
kind: Job
metadata: {name: all}
spec:
  script: |
    echo one >/data/file
    stat -c %u:%g /data/file
    cat /run/secrets/token/value; echo
    cat note.txt
    id -u
  files: [{path: note.txt, content: "a note\\n"}]
  volumes: [{name: data, path: /data}]
  secrets: [{name: token}]
  limits: {memory: 64Mi, pids: 32}
  isolation: {user: 1000, NETWORK}
"""
EXPECTED = b"1000:1000\n***\na note\n1000\n"


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host() as made:
        yield made


def test_a_job_without_a_network_has_all_of_the_rest(host: Host) -> None:
    host.apply(ALL.replace("NETWORK", "network: none"))
    assert host.finished("all").phase == "COMPLETED", host.log("all", stream="")
    assert host.log("all") == EXPECTED


def test_what_a_job_uses_can_be_described(host: Host) -> None:
    said = host.rnx("describe", "volume/data").out
    assert "Kind:" in said and "Ready:" in said and "kind: Volume" in said and "Realized" in said
    secret = host.rnx("describe", "secret/token").out
    assert "kind: Secret" in secret and "open-sesame" not in secret


@pytest.mark.native_only(reason="the guest's kernel has no nf_tables, which networks need")
def test_a_job_on_a_bridge_has_all_of_the_rest() -> None:
    with (
        stage() as place,
        job_host(within=place.within) as host,
    ):  # in whose network no other daemon has these addresses
        host.apply(ALL.replace("NETWORK", "network: bridge"))
        assert host.finished("all").phase == "COMPLETED", host.log("all", stream="")
        assert host.log("all") == EXPECTED
