"""An array on a real host: through real sandboxes, by the client, and through the death of the daemon in the middle."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import grpc
import pytest

from joblet.api.v1 import job_pb2
from tests.integration.host import Host, eventually, job_host

# Each index leaves a line when it begins and one when it ends, in a volume: what ran, and how often, whatever the daemon says.
SWEEP = """
apiVersion: joblet/v1
kind: Job
metadata: {name: sweep}
spec:
  array: {to: 23, parallel: 4}
  volumes: [{name: ledger, path: /ledger}]
  retry: {limit: 1, initial: 100ms, neverOnExitCodes: [3]}
  script: |
    echo "begin $JOBLET_ATTEMPT" >>"/ledger/$JOBLET_ARRAY_INDEX"
    echo "index $JOBLET_ARRAY_INDEX on $(hostname)"
    sleep 0.1
    case $JOBLET_ARRAY_INDEX in
      7|11) test -e /ledger/mended || exit 3;;
      5) test "$JOBLET_ATTEMPT" = 2;;
    esac
---
apiVersion: joblet/v1
kind: Volume
metadata: {name: ledger}
spec: {size: 1Mi, type: memory}
"""
WAITING = """
apiVersion: joblet/v1
kind: Job
metadata: {name: waiting}
spec:
  array: {to: 2, parallel: 1}
  script: |
    echo "begin $JOBLET_ARRAY_INDEX"
    while [ ! -e /ledger/go ]; do sleep 0.05; done
  volumes: [{name: ledger, path: /ledger}]
"""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host() as host:
        yield host


def keeper(host: Host, script: str) -> str:
    """What a job says that has the ledger."""
    job = f"apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: keeper}}\nspec:\n  command: [sh, -euc, {json.dumps(script)}]\n"
    host.apply(f"{job}  volumes: [{{name: ledger, path: /ledger}}]\n")
    assert host.finished("keeper").phase == "COMPLETED"
    return host.log("keeper").decode()


def begun(host: Host, *indexes: int) -> dict[int, list[str]]:
    """What each index wrote when it began; all of them if none is named."""
    wanted = " ".join(f"/ledger/{index}" for index in indexes) or "/ledger/[0-9]*"
    found: dict[int, list[str]] = {}
    for line in keeper(host, f"grep -H . {wanted}").splitlines():
        path, _, text = line.partition(":")
        found.setdefault(int(path.rpartition("/")[2]), []).append(text)
    return found


def test_an_array_outlives_the_daemon_and_no_index_runs_twice_or_is_forgotten(host: Host) -> None:
    host.apply(SWEEP)
    for so_many in (3, 12):  # killed twice in the middle
        eventually(lambda n=so_many: host.run("sweep").array.succeeded >= n, what="more to succeed")  # type: ignore[misc]
        host.kill()
        host.start()
    run = host.finished("sweep", within=60)
    assert (run.phase, run.reason, run.message) == (
        "FAILED",
        "IndexesFailed",
        "22 of 24 indexes succeeded, 2 failed (7, 11)",
    )
    assert begun(host) == {index: ["begin 1"] + ["begin 2"] * (index == 5) for index in range(24)}
    assert (run.array.succeeded, run.array.failed, run.array.failed_indexes) == (22, 2, "7, 11")
    assert host.log("sweep.9") == b"index 9 on sweep.9\n"


def test_people_see_how_an_array_stands_and_run_what_failed_again(host: Host) -> None:
    status = host.rnx("status", "sweep").out.splitlines()
    assert "Indexes:       22/24 succeeded, 2 failed (0 to 23, 4 at a time)" in status
    assert any(line.split()[:3] == ["7", "FAILED", "ExitCode"] for line in status)
    shown = host.jobs.Indexes(job_pb2.IndexesRequest(ref="sweep")).indexes
    assert [one.state for one in shown] == ["FAILED" if index in (7, 11) else "SUCCEEDED" for index in range(24)]
    assert [len(one.run.attempts) for one in shown] == [2 if index == 5 else 1 for index in range(24)]
    assert host.rnx("log", "sweep", "--index", "11").out == "index 11 on sweep.11\n"
    why = " ".join(host.rnx("why", "sweep").out.split())
    assert "Failed: 7, 11." in why and "Index 7 (run " in why and '"index 7 on sweep.7"' in why
    keeper(host, "touch /ledger/mended")
    assert "2 indexes run again" in host.rnx("retry", "sweep").out
    assert host.rnx("wait", "sweep", "--timeout", "60s").status == 0
    assert begun(host, 7, 8) == {7: ["begin 1", "begin 1"], 8: ["begin 1"]}
    assert host.log("sweep.9") == b"index 9 on sweep.9\n"  # of the run before, whose result was kept


def test_log_and_events_name_an_index_as_people_write_it(host: Host) -> None:
    assert " job=sweep.7 " in host.daemon_log.read_text()
    assert not re.search(r"job=sweep\.[^ .]+\.", host.daemon_log.read_text())
    told = host.jobs.Events(job_pb2.EventsRequest(ref="sweep.7"))
    assert {event.job for event in told} == {"sweep.7"}


def test_an_index_that_has_not_begun_is_waited_for_by_who_follows_it(host: Host) -> None:
    host.apply(WAITING)
    host.running("waiting")
    for ref, why in (("waiting", "has an array"), ("waiting.2", "has not begun"), ("waiting.3", "0 to 2")):
        with pytest.raises(grpc.RpcError, match=why):
            host.log(ref)
    keeper(host, "touch /ledger/go")
    assert host.rnx("log", "-f", "waiting", "--index", "2").out == "begin 2\n"
    assert host.finished("waiting").phase == "COMPLETED"
    assert host.rnx("log", "waiting").out == "".join(f"waiting.{index}  begin {index}\n" for index in range(3))


def test_a_stop_ends_all_indexes(host: Host) -> None:
    keeper(host, "rm /ledger/go")
    host.jobs.Run(job_pb2.RunRequest(name="waiting"))
    eventually(lambda: host.run("waiting").array.running == 1, what="an index to run")
    eventually(lambda: host.log("waiting.0", follow=False) == b"begin 0\n", what="its command to run")
    host.jobs.Stop(job_pb2.StopRequest(ref="waiting"))
    run = host.finished("waiting")
    assert (run.array.stopped, run.array.skipped, run.reason) == (1, 2, "Stopped")
    logs = host.root / "log/waiting"
    assert len(list(logs.glob("*.log"))) == 4
