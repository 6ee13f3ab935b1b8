"""Metrics as Prometheus sees them: scraped from a running daemon, checked by its own tool, and used by the example's rules."""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from joblet.api.v1 import job_pb2
from joblet.pki import Role
from tests.integration.host import PATIENCE, Host, eventually, job_host
from tests.integration.test_configuration import job
from tests.integration.test_trust import authority_of, client_context, handshake, now

EXAMPLES = Path(__file__).parents[2] / "examples/monitoring"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def served(content: dict[str, Any]) -> None:
    content["metrics"] = {"enabled": True, "port": 0, "maxJobs": 2}


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host(configure=served) as host:
        yield host


def port_of(host: Host) -> int:
    return int((host.root / "run/metrics-port").read_text())


def fetch(url: str, context: ssl.SSLContext | None = None) -> bytes:
    with urllib.request.urlopen(url, timeout=30 * PATIENCE, context=context) as answer:
        return bytes(answer.read())


def scrape(host: Host) -> str:
    return fetch(f"http://127.0.0.1:{port_of(host)}/metrics").decode()


def samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(host: Host, name: str, **labels: str) -> float:
    return samples(scrape(host)).get((name, frozenset(labels.items())), 0.0)


def promtool(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *arguments], cwd=EXAMPLES, input=text, capture_output=True, text=True, timeout=60 * PATIENCE
    )


def test_ends_are_counted_by_why_and_launches_are_timed(host: Host) -> None:
    before = samples(scrape(host))
    host.apply(job("good", "['true']"))
    host.apply(job("bad", "['false']"))
    host.finished("good")
    host.finished("bad")
    eventually(lambda: value(host, "joblet_runs_ended_total", phase="FAILED", reason="ExitCode") == 1)
    eventually(lambda: value(host, "joblet_attempts_ended_total", reason="ExitCode") == 1)
    after = samples(scrape(host))

    def grown(name: str, **labels: str) -> float:
        key = (name, frozenset(labels.items()))
        return after.get(key, 0.0) - before.get(key, 0.0)

    assert grown("joblet_runs_ended_total", phase="COMPLETED", reason="Completed") == 1
    assert grown("joblet_attempts_ended_total", reason="ExitCode") == 1
    assert grown("joblet_attempts_launched_total") == 2
    assert grown("joblet_launch_duration_seconds_count") == 2
    assert grown("joblet_queue_wait_seconds_count") == 2
    assert grown("joblet_store_commit_duration_seconds_count") >= 2
    assert grown("joblet_api_calls_total", method="/joblet.v1.JobService/Apply") == 2
    assert grown("joblet_jobs", phase="COMPLETED") == 1 and grown("joblet_jobs", phase="FAILED") == 1


def test_running_jobs_have_figures_of_their_own_up_to_a_bound(host: Host) -> None:
    for name in ("first", "second", "third"):
        host.apply(job(name, more="limits: {memory: 64Mi}"))
        host.running(name)
    found = samples(scrape(host))
    shown = {labels for name, labels in found if name == "joblet_job_memory_bytes"}
    assert shown == {frozenset({("job_name", "first")}), frozenset({("job_name", "second")})}
    first = frozenset({("job_name", "first")})
    assert found["joblet_job_memory_limit_bytes", first] == 64 << 20
    assert 0 < found["joblet_job_memory_bytes", first] < 64 << 20
    assert found["joblet_job_pids", first] >= 1
    assert found["joblet_jobs_without_figures", frozenset()] == 1
    assert found["joblet_runs_active", frozenset()] == 3
    for name in ("first", "second", "third"):
        host.jobs.Delete(job_pb2.DeleteRequest(name=name))
    eventually(lambda: value(host, "joblet_runs_active") == 0)


def test_the_names_follow_the_conventions(host: Host) -> None:
    checked = promtool("check", "metrics", text=scrape(host))
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_the_page_names_all_that_is_served_and_nothing_else(host: Host) -> None:
    suffixes = {"counter": "_total", "info": "_info"}
    families = [one for one in text_string_to_metric_families(scrape(host)) if one.name.startswith("joblet_")]
    served = {one.name + suffixes.get(one.type, "") for one in families if not one.name.endswith("_created")}
    told: set[str] = set()
    for line in (EXAMPLES.parents[1] / "docs/METRICS.md").read_text().splitlines():
        if line.startswith("| `joblet_"):
            names = re.findall(r"`(\w+)(?:\{[\w,]*\})?`", line.split("|")[1])
            told |= {name if name.startswith("joblet_") else f"joblet_job{name}" for name in names}
    assert told == served


def test_files_of_the_spool_that_are_refused_are_counted_until_they_are_mended(host: Host) -> None:
    path = host.spool / "wrong.yml"
    path.write_text("kind: Job\n")
    eventually(lambda: value(host, "joblet_spool_files_refused") == 1, what="the file to count")
    path.unlink()
    eventually(lambda: value(host, "joblet_spool_files_refused") == 0, what="it to count no more")


def test_nothing_of_a_manifest_but_names_is_shown(host: Host) -> None:
    host.apply(job("silent", "[sleep, canary-in-argv]", "env: {TOKEN: canary-in-env}"))
    host.finished("silent")
    assert "canary" not in scrape(host)


def test_refused_calls_and_connections_are_counted(host: Host) -> None:
    handshake(host, client_context(None))
    reason = "PEER_DID_NOT_RETURN_A_CERTIFICATE"
    eventually(lambda: value(host, "joblet_connections_refused_total", reason=reason) == 1)


def test_rules_and_dashboard_use_what_there_is(host: Host) -> None:
    rules = (EXAMPLES / "alerts.yml").read_text()
    dashboard = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
    asked = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", []))
    known = {name for name, _ in samples(scrape(host))}
    known |= {sample.name for family in text_string_to_metric_families(scrape(host)) for sample in family.samples}
    with_git = {"joblet_git_source_ready", "joblet_git_source_synced_timestamp_seconds"}  # once there is a repository
    on_demand = {f"joblet_job_{what}" for what in ("memory_bytes", "memory_limit_bytes", "pids", "cpu_seconds_total")}
    on_demand |= {f"joblet_job_{what}_total" for what in ("cpu_throttled_seconds", "io_read_bytes", "io_written_bytes")}
    on_demand |= {f"joblet_job_{what}_pressure_seconds_total" for what in ("cpu", "memory", "io")}  # where there is PSI
    for text in (rules, asked):
        used = set(re.findall(r"\bjoblet_[a-z_]+", text))
        assert used
        assert used - known - with_git - on_demand == set()


def test_rules_raise_the_alarms_that_they_promise() -> None:
    for arguments in (("check", "rules", "alerts.yml"), ("test", "rules", "alerts.test.yml")):
        checked = promtool(*arguments)
        assert checked.returncode == 0, checked.stdout + checked.stderr
    checked = promtool("check", "config", "--syntax-only", "prometheus.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_with_tls_only_those_with_a_certificate_are_answered(tmp_path: Path) -> None:
    with job_host() as host:
        host.stop()
        authority = authority_of(host)
        server = authority.issue_server(["localhost", "127.0.0.1"], now())
        client = authority.issue_client("scraper", Role.VIEWER, now())
        files = {
            "server.crt": server.certificate,
            "server.key": server.key,
            "ca.crt": authority.pair.certificate,
            "client.pem": client.certificate + client.key,
        }
        for name, text in files.items():
            (tmp_path / name).write_text(text)
        places = {"certPath": "server.crt", "keyPath": "server.key", "clientCaPath": "ca.crt"}
        secured = {"enabled": True, "port": 0, **{key: str(tmp_path / name) for key, name in places.items()}}
        host.configure(lambda content: content.update(metrics=secured))
        with pytest.raises(AssertionError, match=r"server\.key.*\bchmod 600"):
            host.start()
        (tmp_path / "server.key").chmod(0o600)
        host.start()
        url = f"https://localhost:{port_of(host)}/metrics"
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
        with pytest.raises((OSError, http.client.HTTPException)):
            fetch(url, context)
        context.load_cert_chain(tmp_path / "client.pem")
        with socket.create_connection(("localhost", port_of(host))):  # one that says nothing keeps nobody waiting
            assert b"joblet_build_info{" in fetch(url, context)


def test_a_port_that_is_taken_is_told_at_the_start() -> None:
    with job_host() as host, socket.create_server(("127.0.0.1", 0)) as taken:
        host.stop()
        port = taken.getsockname()[1]
        host.configure(lambda content: content.update(metrics={"enabled": True, "port": port}))
        with pytest.raises(AssertionError, match=r"cannot serve metrics: .*metrics\.port"):
            host.start()
