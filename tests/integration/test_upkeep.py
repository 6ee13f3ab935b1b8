"""Upkeep by jobs: the manifests that Joblet ships work through Joblet itself, and may do nothing but what they ask for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from ruamel.yaml import YAML

from joblet.api.v1 import job_pb2
from joblet.manifest import read_manifests
from jobletd.backup.archive import read_archive
from jobletd.backup.keeper import name_of
from tests.integration.host import PATIENCE, Host, eventually, job_host
from tests.integration.joblet_command import joblet

MANIFESTS = Path(__file__).parents[2] / "manifests"
CALLS = {"daily-backup": "backup", "monthly-rotation": "rotate", "weekly-report": "report"}


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host(configure=allowing("backup", "rotate", "report")) as host:
        yield host


def allowing(*calls: str) -> Any:
    def configure(config: dict[str, Any]) -> None:
        config["isolation"]["allowedUpkeep"] = list(calls)

    return configure


def reload(host: Host, *calls: str) -> None:
    host.configure(allowing(*calls))
    assert joblet("reload", "--config", host.config).status == 0


def shipped(name: str) -> str:
    return (MANIFESTS / f"{name}.yml").read_text()


def apply_and_run(host: Host, name: str) -> None:
    """As it is, with its schedule; and one run now."""
    (result,) = host.apply(shipped(name))
    host.jobs.Run(job_pb2.RunRequest(name=result.name), timeout=30 * PATIENCE)


def done(host: Host, name: str) -> str:
    """Runs to its end, well. Returns what it wrote."""
    run = host.finished(name, within=60)
    assert run.phase == "COMPLETED", (run.message, host.log(name, stream="stderr"), host.log_tail())
    return host.log(name).decode()


def job(name: str, calls: str, script: str, more: str = "") -> str:
    lines = "\n".join(f"    {line}" for line in script.strip().splitlines())
    return (
        "apiVersion: joblet/v1\nkind: Job\n"
        f"metadata: {{name: {name}}}\nspec:\n  isolation: {{upkeep: {calls}{more}}}\n  script: |\n{lines}\n"
    )


def archives(host: Host, name: str) -> list[Path]:
    return sorted((host.root / "state/backups" / name).iterdir())


def test_there_is_a_manifest_for_each_call_with_no_more_than_it_needs() -> None:
    assert {path.stem for path in MANIFESTS.glob("*.yml")} == CALLS.keys()
    for name, call in CALLS.items():
        (manifest,) = read_manifests(shipped(name).encode(), filename=f"{name}.yml")
        isolation = manifest.spec.isolation  # type: ignore[union-attr]
        assert isolation.upkeep == (call,) and isolation.network == "none" and isolation.seccomp == "strict"
        assert manifest.spec.schedule and manifest.spec.schedule.cron  # type: ignore[union-attr]
        assert isolation.user and not isolation.capabilities and not manifest.spec.secrets  # type: ignore[union-attr]


def test_the_daily_backup_leaves_a_whole_archive_and_removes_the_oldest(host: Host, tmp_path: Path) -> None:
    directory = host.root / "state/backups/daily-backup"
    directory.mkdir(0o700)
    earlier = [directory / name_of(day * 86_400 * 10**9) for day in range(1, 21)]
    for path in earlier:
        path.write_bytes(b"an old one")
    apply_and_run(host, "daily-backup")
    assert "Read back whole; of the older ones 7 removed" in done(host, "daily-backup")
    *older, archive = archives(host, "daily-backup")
    assert older == earlier[7:]
    contents = read_archive(str(archive), str(tmp_path))
    assert {"joblet.db", "config/joblet-config.yml", "config/ca.key"} <= contents.modes.keys()
    assert archive.stat().st_mode & 0o777 == 0o600
    assert sorted((host.root / "state/backups").glob("*.joblet-backup"))  # the daemon's own are not counted


def test_the_monthly_rotation_leaves_certificates_that_clients_use(host: Host) -> None:
    before = {path.name: path.read_text() for path in (host.root / "config").glob("*.yml")}
    old = host.client()  # with its connection
    apply_and_run(host, "monthly-rotation")
    assert "answers old and new clients" in done(host, "monthly-rotation")
    after = {path.name: path.read_text() for path in (host.root / "config").glob("*.yml")}
    assert before.keys() == after.keys() and all(before[name] != after[name] for name in before)
    assert old.List(job_pb2.ListRequest(), timeout=30 * PATIENCE).jobs
    host.channels.pop("admin").close()
    assert host.client().List(job_pb2.ListRequest(), timeout=30 * PATIENCE).jobs  # by the new file


def test_the_weekly_report_stands_in_the_output_of_its_run(host: Host) -> None:
    apply_and_run(host, "weekly-report")
    text = done(host, "weekly-report")
    assert "service:     running since" in text
    assert "weekly-report" in text.partition("Active jobs: 1")[2]


def test_a_job_may_ask_for_nothing_but_what_its_manifest_names(host: Host) -> None:
    script = """
#!/usr/bin/python3
import json, os, socket, subprocess

HERE = "/run/joblet/upkeep"
def ask(*words):
    return subprocess.run([f"{HERE}/ask", *words], capture_output=True).returncode
def say(data):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(f"{HERE}/socket")
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        return json.loads(s.makefile().readline())["exit"]
def cannot(do, *arguments):
    try:
        do(*arguments)
        return False
    except OSError:
        return True
print(json.dumps({
    "report": ask("report", "--json"),
    "others": [ask("rotate"), ask("backup"), ask("backup", "--keep", "1")],
    "no calls": [ask(), ask("apply", "-f", "x"), ask("run", "true"), ask("certs", "issue"), ask("")],
    "arguments": [ask("report", "--config", "/x"), ask("report", "--json", "; id"), ask("report", "extra")],
    "protocols": [say(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n"), say(b"{}\\n"), say(b""), say(b"[1]\\n"), say(b"[" * 4000)],
    "long": say(b'["' + b"x" * 100000 + b'"]\\n'),
    "seen": sorted(os.listdir("/run/joblet/upkeep")),
    "closed": [cannot(open, f"{HERE}/ask", "w"), cannot(os.unlink, f"{HERE}/socket"), cannot(os.mkdir, f"{HERE}/x")],
}))
"""
    host.apply(job("curious", "[report]", script))
    assert json.loads(done(host, "curious")) == {
        "report": 0,
        "others": [77] * 3,
        "no calls": [77] * 5,
        "arguments": [77] * 3,
        "protocols": [77] * 5,
        "long": 77,
        "seen": ["ask", "socket"],
        "closed": [True] * 3,
    }
    assert "upkeep refused client=job:curious" in host.log_tail()
    assert not (host.root / "state/backups/curious").exists()


def test_a_job_that_may_ask_for_nothing_has_no_socket(host: Host) -> None:
    host.apply(job("plain", "[]", "test ! -e /run/joblet/upkeep && echo none"))
    assert done(host, "plain") == "none\n"


def test_what_the_configuration_does_not_allow_is_refused_with_the_key_that_would(host: Host) -> None:
    reload(host, "report")
    try:
        with pytest.raises(grpc.RpcError) as refused:
            host.apply(shipped("monthly-rotation").replace("monthly-rotation", "another"))
        assert "isolation.allowedUpkeep" in str(refused.value)
    finally:
        reload(host, "backup", "rotate", "report")


def test_a_running_job_asks_the_next_daemon_under_the_configuration_that_is_then(host: Host) -> None:
    script = """
ask=/run/joblet/upkeep/ask
$ask report --json >/dev/null && echo first=$?
until [ -e /data/go ]; do sleep 0.1; done
code=75
while [ $code = 75 ]; do code=0; $ask report --json >/dev/null 2>&1 || code=$?; sleep 0.1; done
echo second=$code
code=0; $ask backup >/dev/null 2>&1 || code=$?
echo third=$code
"""
    host.apply("{apiVersion: joblet/v1, kind: Volume, metadata: {name: signals}, spec: {size: 4Mi}}")
    manifest = job("patient", "[report, backup]", script) + "  volumes: [{name: signals, path: /data}]\n"
    host.apply(manifest)
    host.running("patient")
    stream = host.jobs.Logs(job_pb2.LogsRequest(ref="patient", follow=True), timeout=60 * PATIENCE)
    assert next(entry.data for batch in stream for entry in batch.entries) == b"first=0\n"
    stream.cancel()
    host.kill()
    host.configure(allowing("report"))
    host.start()
    go = "{name: go-on}, spec: {command: [touch, /data/go], volumes: [{name: signals, path: /data}]}}"
    host.apply("{apiVersion: joblet/v1, kind: Job, metadata: " + go)
    try:
        assert done(host, "patient") == "first=0\nsecond=0\nthird=77\n"
    finally:
        reload(host, "backup", "rotate", "report")
    eventually(lambda: not list((host.root / "run/upkeep").iterdir()), what="its socket to be gone")


def test_the_client_configuration_of_a_job_is_nowhere_in_its_sandbox(host: Host) -> None:
    script = "grep -rlsI 'PRIVATE [K]EY' /run /work /tmp /etc /opt /var /home /root 2>/dev/null || echo none"
    host.apply(job("searching", "[rotate]", script))
    assert done(host, "searching") == "none\n"
    yaml = YAML(typ="safe").load(host.config.read_text())
    assert "PRIVATE KEY" in yaml["security"]["serverKey"]
