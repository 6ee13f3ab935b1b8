"""When a service counts as started, as ready, and as given up."""

from __future__ import annotations

from typing import Any

import pytest

from joblet.manifest import JobManifest, ManifestErrors, Probe, jobs_of, read_manifests
from jobletd.probing.health import Health, after_probe, pause_seconds


def asked(answers: str, *, age: float = 0.0, **fields: Any) -> Health:
    """answers: ``+`` is well, ``-`` is not."""
    probe = Probe.model_validate({"tcp": 80, **fields})
    health = Health()
    for answer in answers:
        health = after_probe(health, probe, "" if answer == "+" else "no", age)
    return health


@pytest.mark.parametrize(
    ("answers", "fields", "ready"),
    [
        ("", {}, False),
        ("+", {}, True),
        ("-+", {}, True),
        ("+--", {}, True),
        ("+---", {}, False),
        ("+-+-+-", {}, True),
        ("+---+", {}, True),
        ("++", {"successes": 3}, False),
        ("+++", {"successes": 3}, True),
        ("++-+", {"successes": 3}, False),
        ("+-", {"failures": 1}, False),
    ],
)
def test_who_is_ready(answers: str, fields: dict[str, Any], ready: bool) -> None:
    assert asked(answers, **fields).ready is ready


def test_who_starts_is_given_up_after_its_time_and_not_after_failures() -> None:
    assert not asked("-----", age=59).given_up
    assert asked("-", age=60).given_up
    assert not asked("-+", age=60).given_up
    assert asked("+---", age=60).given_up and not asked("+--", age=60).given_up
    assert not asked("+---+", age=60).given_up


def test_who_starts_is_asked_more_often() -> None:
    probe = Probe.model_validate({"tcp": 80})
    assert pause_seconds(Health(), probe) == 1.0
    assert pause_seconds(Health(ready=True, started=True), probe) == 10.0


def service(more: str) -> JobManifest:
    text = f"{{apiVersion: joblet/v1, kind: Job, metadata: {{name: a}}, spec: {{command: [x], {more}}}}}"
    (manifest,) = jobs_of(read_manifests(text.encode(), filename="a.yml"))
    return manifest


def test_a_probe_is_read_as_it_is_written() -> None:
    probe = service("restart: Always, probe: {http: {port: 80, path: '/up?a=1'}, interval: 5s}").spec.probe
    assert probe is not None and probe.http is not None
    assert (probe.http.port, probe.http.path, probe.interval_seconds, probe.timeout_seconds) == (
        80,
        "/up?a=1",
        5.0,
        2.0,
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("probe: {tcp: 80}", "works only with restart: Always"),
        ("restart: Always, probe: {interval: 1s}", "says no way to ask"),
        ("restart: Always, probe: {tcp: 80, command: [x]}", "has command and tcp"),
        ("restart: Always, probe: {tcp: 0}", "out of range"),
        ("restart: Always, probe: {http: {port: 80, path: up}}", "is no path of a request"),
        ("restart: Always, probe: {http: {port: 80, path: '/a b'}}", "is no path of a request"),
        ("restart: Always, update: {maxUnavailable: 0}", "0 needs a probe"),
        ("restart: Always, probe: {tcp: 80}, update: {maxUnavailable: 2}", "out of range"),
    ],
)
def test_a_probe_that_makes_no_sense_is_refused(more: str, message: str) -> None:
    with pytest.raises(ManifestErrors, match=message):
        service(more)
