"""What the configuration does not allow is refused whichever way it comes in, and again when a run starts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.integration.host import PATIENCE, Host, eventually, job_host

JOB = "apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec: {{command: {command}, isolation: {isolation}}}\n"


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host() as host:
        yield host


def text(name: str, isolation: str, command: str = "['true']") -> str:
    return JOB.format(name=name, isolation=isolation, command=command)


@pytest.mark.parametrize(
    ("isolation", "place"),
    [
        ("{network: host}", "spec.isolation.network"),
        ("{capabilities: [SYS_ADMIN]}", "spec.isolation.capabilities"),
        ("{seccomp: unconfined}", "spec.isolation.seccomp"),
        ("{rootfs: /}", "spec.isolation.rootfs"),
        ("{seccomp: /etc/passwd}", "spec.isolation.seccomp"),
    ],
)
def test_a_client_is_refused_with_the_place(host: Host, isolation: str, place: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        host.apply(text("asks-more", isolation))
    status = rpc_status.from_call(refused.value)
    assert status is not None and place in status.message and "isolation." in status.message.rpartition("(")[2]
    fields = []
    for detail in status.details:
        request = error_details_pb2.BadRequest()
        if detail.Unpack(request):
            fields += [violation.field for violation in request.field_violations]
    assert fields == [place]
    assert b"asks-more" not in host.rnx("list").stdout


def test_a_file_is_refused_and_its_job_goes_on_as_it_was(host: Host) -> None:
    path = host.spool / "service.yml"
    path.write_text(text("service", "{}", "[sleep, '600']"))
    before = eventually(lambda: host.rnx("status", "service").status == 0 and host.running("service"))
    assert before
    path.write_text(text("service", "{network: host}", "[sleep, '600']"))
    error = host.spool / "status/service.yml.error.yml"
    eventually(error.exists, what="the error file")
    told = error.read_text()
    assert "spec.isolation.network" in told and "allowHostNetwork" in told
    assert host.run("service").id == before.id and host.run("service").phase == "RUNNING"
    path.unlink()
    eventually(lambda: host.rnx("status", "service").status != 0)


def test_what_was_allowed_when_it_was_applied_is_asked_again_at_the_start() -> None:
    def allow(config: dict[str, Any]) -> None:
        config["isolation"]["allowHostNetwork"] = True
        config["isolation"]["allowedCapabilities"] = ["NET_BIND_SERVICE"]

    def forbid(config: dict[str, Any]) -> None:
        config["isolation"]["allowHostNetwork"] = False

    with job_host(configure=allow) as host:
        host.apply(text("web", "{network: host, capabilities: [NET_BIND_SERVICE]}", "[cat, /proc/self/status]"))
        assert host.finished("web").phase == "COMPLETED"
        assert b"CapEff:\t0000000000000400" in host.log("web")
        host.stop()
        host.configure(forbid)
        host.start()
        assert host.rnx("run", "--help").status == 0
        host.jobs.Run(run_request("web"), timeout=30 * PATIENCE)
        ended = host.finished("web")
        assert (ended.phase, ended.reason) == ("FAILED", "NotAllowed")
        assert "spec.isolation.network" in ended.message and "allowHostNetwork" in ended.message


def run_request(name: str) -> Any:
    from joblet.api.v1 import job_pb2

    return job_pb2.RunRequest(name=name)


# --- seccomp ----------------------------------------------------------------------------------------------------------

SECCOMP = "import socket, sys; print(open('/proc/self/status').read().split('Seccomp:')[1].split()[0]); socket.socket()"


def outcome(host: Host, name: str, isolation: str) -> tuple[str, bytes, bytes]:
    host.apply(text(name, isolation, json.dumps(["python3", "-c", SECCOMP])))
    phase = host.finished(name).phase
    return phase, host.log(name), host.log(name, stream="stderr")


def test_strict_has_no_network_sockets(host: Host) -> None:
    phase, output, errors = outcome(host, "strict", "{seccomp: strict}")
    assert (phase, output) == ("FAILED", b"2\n") and b"Operation not permitted" in errors


def test_a_profile_of_ones_own_is_used(host: Host) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97}],
    }
    path = host.root / "seccomp/no-sockets.json"
    path.write_text(json.dumps(profile))
    phase, output, errors = outcome(host, "own-profile", f"{{seccomp: {path}}}")
    assert (phase, output) == ("FAILED", b"2\n") and b"Address family not supported" in errors


def test_a_broken_profile_is_a_start_error_with_its_place(host: Host) -> None:
    path = host.root / "seccomp/broken.json"
    path.write_text('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "DENY"}]}')
    host.apply(text("broken-profile", f"{{seccomp: {path}}}"))
    ended = host.finished("broken-profile")
    assert ended.reason == "StartError" and f"{path}: syscalls[0].action: 'DENY' cannot be carried out" in ended.message


def test_unconfined_where_it_is_allowed_has_no_filter() -> None:
    def allow(config: dict[str, Any]) -> None:
        config["isolation"]["allowUnconfined"] = True

    with job_host(configure=allow) as host:
        assert outcome(host, "free", "{seccomp: unconfined}")[:2] == ("COMPLETED", b"0\n")
