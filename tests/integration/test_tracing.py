"""Traces as a collector sees them: from a client's own span to the outcome, whatever daemon was there in between."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from joblet.api.v1 import job_pb2
from joblet.trace_context import TraceContext
from tests.integration.collector import Collector, Received, collector
from tests.integration.host import Ended, Host, eventually, job_host
from tests.timing import PATIENCE

SERVER = 2  # SpanKind of OTLP
TELLING = """
    apiVersion: joblet/v1
    kind: Job
    metadata: {name: telling}
    spec:
      # Goes on when the file appears.
      script: |
        echo "$TRACEPARENT $TRACESTATE"
        i=0; while [ ! -e /work/go ] && [ $i -lt 600 ]; do sleep 0.1; i=$((i+1)); done
        exit 3
"""
FLOW = """
apiVersion: joblet/v1
kind: Workflow
metadata: {name: flow}
spec:
  steps:
    - {name: first, job: {command: ["true"]}}
    - {name: second, needs: [{step: first}], job: {command: ["false"]}}
"""


@pytest.fixture(scope="module")
def received() -> Iterator[Collector]:
    with collector() as found:
        yield found


@pytest.fixture(scope="module")
def host(received: Collector) -> Iterator[Host]:
    def traced(content: dict[str, Any]) -> None:
        content["tracing"] = {"enabled": True, "endpoint": received.endpoint}

    with job_host(configure=traced) as host:
        yield host


def client_span(*, sampled: bool = True) -> TraceContext:
    return TraceContext(secrets.token_hex(16), secrets.token_hex(8), sampled, "vendor=1")


def metadata(context: TraceContext) -> list[tuple[str, str]]:
    return [("traceparent", str(context)), ("tracestate", context.state)]


def whole(received: Collector, trace_id: str, last: str) -> dict[str, Received]:
    """The spans of a trace by name, of which each has one; once the last one is there."""
    received.wait(lambda spans: [one for one in spans if (one.trace_id, one.name) == (trace_id, last)])
    spans = received.spans(trace_id)
    assert not [name for name, count in Counter(span.name for span in spans).items() if count > 1]
    return {span.name: span for span in spans}


def rnx(host: Host, context: TraceContext, *arguments: str | Path) -> Ended:
    """The client, started by a process that is a span itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACEPARENT", str(context))
        patch.setenv("TRACESTATE", context.state)
        return host.rnx(*arguments)


def test_a_trace_goes_from_the_client_to_the_outcome_over_the_death_of_the_daemon(
    host: Host, received: Collector, tmp_path: Path
) -> None:
    client = client_span()
    manifest = tmp_path / "telling.yml"
    manifest.write_text(TELLING)
    assert rnx(host, client, "apply", "-f", manifest).status == 0
    run = host.running("telling")
    told = eventually(lambda: host.log("telling", follow=False).decode().split(), what="what the command was given")
    whole(received, client.trace_id, "joblet.launch")
    host.kill()
    (state,) = (host.root / "state/attempts").glob("telling-*/state")
    Path(f"/proc/{state.read_text().split()[1]}/root/work/go").touch()
    eventually((state.parent / "exit.json").exists, what="the exit record")
    host.start()
    host.finished("telling")

    spans = whole(received, client.trace_id, "joblet.run")
    above = {name: span.parent_id for name, span in spans.items()}
    of_run = spans["joblet.run"].span_id
    below_run = ("joblet.wait", "joblet.reconcile", "joblet.launch", "joblet.command", "joblet.outcome")
    assert above == {
        "joblet.apply": client.span_id,
        "joblet.store": spans["joblet.apply"].span_id,
        "joblet.run": spans["joblet.apply"].span_id,
        **dict.fromkeys(below_run, of_run),
    }
    assert told == [str(replace(client, span_id=spans["joblet.command"].span_id)), "vendor=1"]
    assert {span.state for span in spans.values()} == {"vendor=1"}
    assert spans["joblet.apply"].kind == SERVER
    assert spans["joblet.apply"].attributes["joblet.source"].startswith("grpc:")
    assert f"Trace:         {client.trace_id}\n" in host.rnx("status", "telling").out
    last = host.run("telling").attempts[-1]
    command, outcome = spans["joblet.command"], spans["joblet.outcome"]
    assert (command.began_ns, command.ended_ns) == (last.started.ToNanoseconds(), last.ended.ToNanoseconds())
    assert command.attributes["process.exit.code"] == 3 and command.fault is not None and "ExitCode" in command.fault
    assert outcome.began_ns >= command.ended_ns and outcome.attributes["joblet.decision"] == "finish"
    assert spans["joblet.launch"].ended_ns == command.began_ns
    assert spans["joblet.reconcile"].attributes["joblet.decision"] == "launch"
    assert spans["joblet.run"].attributes["joblet.run"] == run.id
    assert {span.attributes["joblet.job"] for name, span in spans.items() if name in below_run} == {"telling"}
    assert spans["joblet.run"].resource["service.name"] == "joblet"


def test_what_is_not_sampled_is_passed_on_and_not_recorded(host: Host, received: Collector) -> None:
    client = client_span(sampled=False)
    shown = rnx(host, client, "run", "--wait", "--name", "quiet", "--", "printenv", "TRACEPARENT")
    assert shown.status == 0, shown.err
    told = TraceContext.parse(host.log("quiet").decode().strip())
    assert told is not None and (told.trace_id, told.sampled) == (client.trace_id, False)
    assert told.span_id != client.span_id
    # What comes later has arrived: what came before it would have, too.
    later = client_span()
    assert rnx(host, later, "run", "--job", "quiet").status == 0
    host.finished("quiet")
    spans = whole(received, later.trace_id, "joblet.run")
    assert spans["joblet.run"].parent_id == spans["joblet.trigger"].span_id
    assert spans["joblet.trigger"].parent_id == later.span_id
    assert received.spans(client.trace_id) == []
    assert {run.id: run.trace_id for run in host.job("quiet", history=True).runs} == {
        host.run("quiet").id: later.trace_id,
        host.job("quiet", history=True).runs[-1].id: "",
    }


def test_the_spans_of_a_workflows_steps_are_below_its_own(host: Host, received: Collector) -> None:
    client = client_span()
    request = job_pb2.ApplyRequest(manifest=FLOW.encode(), filename="flow.yml")
    host.jobs.Apply(request, metadata=metadata(client), timeout=30 * PATIENCE)

    def over(spans: list[Received]) -> list[Received]:
        return [span for span in spans if (span.trace_id, span.name) == (client.trace_id, "joblet.workflow")]

    (workflow,) = received.wait(over)
    spans = received.spans(client.trace_id)
    by_id = {span.span_id: span for span in spans}
    runs = {str(span.attributes["joblet.job"]): span for span in spans if span.name == "joblet.run"}
    assert set(runs) == {"flow-first", "flow-second"}
    assert {by_id[by_id[span.parent_id].parent_id].name for span in runs.values()} == {"joblet.workflow"}
    assert by_id[workflow.parent_id].name == "joblet.apply" and by_id[workflow.parent_id].parent_id == client.span_id
    assert workflow.attributes["joblet.phase"] == "Failed" and workflow.fault is not None and "second" in workflow.fault
    assert all(workflow.began_ns <= span.began_ns and span.ended_ns <= workflow.ended_ns for span in runs.values())

    again = client_span()
    assert rnx(host, again, "retry", "flow").status == 0
    (retried,) = received.wait(
        lambda spans: [one for one in spans if (one.trace_id, one.name) == (again.trace_id, "joblet.workflow")]
    )
    assert retried.span_id != workflow.span_id and retried.began_ns > workflow.ended_ns
    (retry,) = [span for span in received.spans(again.trace_id) if span.name == "joblet.retry"]
    assert (retried.parent_id, retry.parent_id) == (retry.span_id, again.span_id)
    assert [span.attributes["joblet.job"] for span in received.spans(again.trace_id) if span.name == "joblet.run"] == [
        "flow-second"
    ]


def test_what_no_client_asked_for_has_a_trace_of_its_own(host: Host, received: Collector) -> None:
    manifest = "apiVersion: joblet/v1\nkind: Job\nmetadata: {name: dropped}\nspec: {command: ['true', canary]}\n"
    (host.root / "new.yml").write_text(manifest)
    (host.root / "new.yml").rename(host.spool / "dropped.yml")

    def over(spans: list[Received]) -> list[Received]:
        return [one for one in spans if one.name == "joblet.run" and one.attributes["joblet.job"] == "dropped"]

    (run,) = received.wait(over)
    spans = whole(received, run.trace_id, "joblet.run")
    apply = spans["joblet.apply"]
    assert apply.parent_id == "" and apply.attributes["joblet.source"] == "spool:dropped.yml" and apply.kind != SERVER
    assert run.parent_id == apply.span_id and run.fault is None
    # Nothing of a manifest but names.
    assert "canary" not in repr(spans)
