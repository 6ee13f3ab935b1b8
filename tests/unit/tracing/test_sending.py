"""How spans reach a collector: with TLS, one that is gone and comes back, and what is said where it cannot be."""

from __future__ import annotations

import datetime
import secrets
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import grpc
import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from joblet.clock import SystemClock
from joblet.config.watching_sections import TracingSection
from joblet.pki import Authority, Role
from joblet.trace_context import TraceContext
from jobletd.metrics import instruments
from jobletd.tracing.otlp import Sender
from jobletd.tracing.sending import open_tracing
from jobletd.tracing.span import Span
from tests.integration.collector import collector
from tests.integration.host import eventually
from tests.integration.joblet_command import joblet
from tests.ports import held_port

BEGAN_NS = 1_700_000_000 * 10**9
# An interpreter in which the extra is not installed.
WITHOUT = """
import importlib.abc, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from jobletd.cli import main
sys.exit(main())
"""


def span(trace_id: str, *, above: str = "") -> Span:
    context = TraceContext(trace_id, secrets.token_hex(8), sampled=True)
    return Span("joblet.run", context, above, BEGAN_NS, BEGAN_NS + 5, {"joblet.job": "report"}, fault="ExitCode: 1")


def counted(outcome: str) -> float:
    return float(instruments.trace_spans.labels(outcome)._value.get())


def lost(spans: float) -> bool:
    return counted("failed") >= spans


def tried(sender: Sender, trace_id: str) -> str:
    """Send one span; its trace if it arrived, else nothing."""
    sent, failed = counted("sent"), counted("failed")
    sender.send(span(trace_id))
    eventually(lambda: counted("sent") > sent or counted("failed") > failed, what="an end of the try")
    return trace_id if counted("sent") > sent else ""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An authority, a collector's certificate and a client's."""
    now = datetime.datetime.now(datetime.UTC)
    authority = Authority.create(now)
    server, client = authority.issue_server(["127.0.0.1"], now), authority.issue_client("traces", Role.VIEWER, now)
    texts = {
        "ca.crt": authority.pair.certificate,
        **{"server.crt": server.certificate, "server.key": server.key},
        **{"client.crt": client.certificate, "client.key": client.key},
    }
    directory = tmp_path_factory.mktemp("tls")
    for name, text in texts.items():
        (directory / name).write_text(text)
        (directory / name).chmod(0o600)
    return {name: directory / name for name in texts}


def test_a_span_arrives_as_it_was_told_over_tls_with_certificates_of_both(files: dict[str, Path]) -> None:
    pair = (files["server.key"].read_bytes(), files["server.crt"].read_bytes())
    demanding = grpc.ssl_server_credentials([pair], files["ca.crt"].read_bytes(), require_client_auth=True)
    with collector(demanding) as received:
        names = {"caPath": "ca.crt", "certPath": "client.crt", "keyPath": "client.key"}
        places = {key: str(files[name]) for key, name in names.items()}
        settings = TracingSection.model_validate({"enabled": True, "endpoint": received.endpoint, **places})
        sender = Sender(settings)
        told = span(secrets.token_hex(16), above=secrets.token_hex(8))
        sender.send(told)
        sender.close()  # sends what is left
        (found,) = received.spans(told.context.trace_id)
    assert (found.name, found.span_id, found.parent_id) == (told.name, told.context.span_id, told.above)
    assert (found.began_ns, found.ended_ns, found.fault) == (BEGAN_NS, BEGAN_NS + 5, "ExitCode: 1")
    assert found.attributes == {"joblet.job": "report"}


def test_a_collector_that_is_gone_costs_spans_and_one_line_and_is_found_again() -> None:
    failed, sent = counted("failed"), counted("sent")
    with held_port() as port, capture_logs() as lines:
        settings = TracingSection(enabled=True, endpoint=f"http://127.0.0.1:{port}")
        sender = Sender(settings, every_ms=10, send_seconds=0.5)
        for times in (1, 2):
            sender.send(span(secrets.token_hex(16)))
            eventually(partial(lost, failed + times), what="spans that are lost")
        with collector(port=port) as received:
            # On a busy machine a try may take longer than it has.
            arrived = eventually(lambda: tried(sender, secrets.token_hex(16)), what="one that arrives")
            assert received.spans(arrived)
            sender.close()
    assert counted("sent") - sent == 1
    told = [line["event"] for line in lines]
    assert (told.count("spans do not arrive"), told.count("spans arrive again")) == (1, 1)
    (warning,) = [line for line in lines if line["event"] == "spans do not arrive"]
    assert warning["endpoint"] == settings.endpoint and "UNAVAILABLE" in warning["error"]


def test_a_collector_that_does_not_answer_keeps_no_daemon_from_its_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        sender = Sender(TracingSection(enabled=True, endpoint=endpoint), send_seconds=3600, last_seconds=0.1)
        sender.send(span(secrets.token_hex(16)))
        sender.close()  # or this test runs into its time limit


def test_what_is_missing_is_said_by_the_check_and_at_the_start(tmp_path: Path) -> None:
    config = tmp_path / "j/config/joblet-config.yml"
    assert joblet("init", "--root", tmp_path / "j", "--port", "0").status == 0
    off = config.read_text()
    config.write_text(f"{off}\ntracing: {{enabled: true}}\n")
    for command in (("config", "check"), ("serve",)):
        ended = subprocess.run(
            [sys.executable, "-c", WITHOUT, *command, "--config", config], capture_output=True, text=True, check=False
        )
        assert ended.returncode == 1
        assert "tracing.enabled: needs OpenTelemetry, which is not installed" in ended.stderr
        assert "pip install 'joblet[tracing]', or set tracing.enabled: false" in ended.stderr
    assert not (tmp_path / "j/state/joblet.db").exists()  # nothing was begun
    assert joblet("config", "check", "--config", config).status == 0
    config.write_text(f"{off}\ntracing: {{enabled: true, endpoint: 'https://c:1', caPath: {tmp_path}/nosuch}}\n")
    refused = joblet("config", "check", "--config", config)
    assert refused.status == 1 and "tracing.caPath" in refused.err and "No such file" in refused.err


def test_where_it_is_off_nothing_of_it_is_loaded() -> None:
    code = "import jobletd.serve, sys; print([name for name in sys.modules if 'opentelemetry' in name or 'tracing.otlp' in name])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout == "[]\n"
    assert open_tracing(TracingSection(), SystemClock()) is None


@pytest.mark.parametrize(
    ("section", "why"),
    [
        ({"endpoint": "collector:4317"}, "no endpoint"),
        ({"endpoint": "grpc://collector:4317"}, "no endpoint"),
        ({"endpoint": "http://collector"}, "no endpoint"),
        ({"endpoint": "http://collector:4317/v1/traces"}, "no endpoint"),
        ({"endpoint": "https://user:word@collector:4317"}, "no endpoint"),
        ({"endpoint": "http://collector:99999"}, "no endpoint"),
        ({"caPath": "/ca.crt"}, "begin with https"),
        ({"endpoint": "https://c:1", "certPath": "/c.crt"}, "belong together"),
        ({"ratio": 1.5}, "less than or equal to 1"),
    ],
)
def test_a_section_that_cannot_be_meant_is_refused(section: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        TracingSection.model_validate(section)


def test_an_endpoint_may_be_written_as_an_address() -> None:
    assert TracingSection(endpoint="https://[::1]:4317/").endpoint == "https://[::1]:4317"
