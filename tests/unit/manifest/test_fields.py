"""Every field's own check, and the rules across fields; each refusal is compared with what the JSON Schema says."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from joblet.manifest import schema_of
from tests.unit.manifest.samples import errors, raw

SCHEMA = jsonschema.Draft202012Validator(schema_of("Job"))


def faults(document: dict[str, Any]) -> list[str]:
    return [f"{error.path}: {error.message}" for error in errors(json.dumps(document), "job.json")]


def with_metadata(**metadata: Any) -> dict[str, Any]:
    return {**raw(), "metadata": {"name": "a", **metadata}}


def spec(**fields: Any) -> dict[str, Any]:
    return raw(**{"command": ["x"], **fields})


# A document, its fault, and whether a JSON Schema can say so too.
REFUSED: list[tuple[dict[str, Any], str, bool]] = [
    ({**raw(), "apiVersion": "joblet/v2"}, 'apiVersion: "joblet/v2" is not allowed here (use joblet/v1)', True),
    ({**raw(), "kind": "job"}, 'kind: "job" is not a kind; did you mean Job? (use GitSource, Job, ', True),
    ({**raw(), "specs": {}}, 'specs: unknown key "specs"; did you mean spec?', True),
    ({**raw(), "spec": None}, "spec: null is not a mapping", True),
    ({**raw(), "metadata": []}, "metadata: a list is not a mapping", True),
    (with_metadata(name="A"), 'metadata.name: "A" is not a name', True),
    (with_metadata(name="a" * 64), "is not a name", True),
    (with_metadata(name="-a"), "is not a name", True),
    (with_metadata(name=5), "metadata.name: 5 is not a name; write it in quotes", True),
    (
        with_metadata(namespace="x"),
        'metadata.namespace: unknown key "namespace" (allowed: name, labels, annotations)',
        True,
    ),
    (with_metadata(labels={"a b": "c"}), 'metadata.labels["a b"]: "a b" is not a key', True),
    (with_metadata(labels={"a": "b c"}), "is not a label's value", True),
    (with_metadata(labels={"a": True}), "metadata.labels.a: true is not text; write it in quotes", True),
    (with_metadata(labels=None), "metadata.labels: null is not a mapping", True),
    (with_metadata(annotations={"a": 1.5}), "metadata.annotations.a: 1.5 is not text; write it in quotes", True),
    (spec(command="echo hello"), 'spec.command: "echo hello" is not a list; write [a, b]', True),
    (spec(command=[]), "spec.command: the list is empty", True),
    (spec(command=[""]), "spec.command[0]: the command's name is empty", False),
    (spec(command=["sleep", 5]), "spec.command[1]: 5 is not text; write it in quotes", True),
    (spec(command=["a\0"]), "spec.command[0]: holds a NUL character", True),
    (spec(command=["x" * 131_072]), "spec.command[0]: is longer than 131071 bytes", True),
    (spec(command=["é" * 65_536]), "spec.command[0]: is longer than 131071 bytes", False),
    (spec(command=None), "spec.command: null is not a list", True),
    (spec(script="x"), "spec.script: command is given too", True),
    (raw(env={}), "spec: needs a command or a script", True),
    (raw(script=" \n"), "spec.script: the script is empty", True),
    (raw(script="a\0"), "spec.script: holds a NUL character", True),
    (spec(env={"1A": "x"}), 'spec.env.1A: "1A" is not the name of an environment variable', True),
    (spec(env={"A=B": "x"}), "is not the name of an environment variable", True),
    (spec(env={"A": "x\0"}), "spec.env.A: holds a NUL character", True),
    (spec(env={"A": None}), "spec.env.A: null is not text", True),
    (spec(env=["A=B"]), "spec.env: a list is not a mapping", True),
    (spec(workdir="work"), 'spec.workdir: "work" is not an absolute path', True),
    (spec(workdir="/work/../etc"), "has an empty part, . or .. in it", True),
    (spec(files=[{"path": "/a", "content": ""}]), 'spec.files[0].path: "/a" is absolute', True),
    (spec(files=[{"path": "../a", "content": ""}]), "has an empty part, . or .. in it", True),
    (spec(files=[{"path": "a/../../b", "content": ""}]), "has an empty part, . or .. in it", True),
    (spec(files=[{"path": "a//b", "content": ""}]), "has an empty part, . or .. in it", True),
    (spec(files=[{"path": "a/", "content": ""}]), "has an empty part, . or .. in it", True),
    (spec(files=[{"path": "", "content": ""}]), "has an empty part, . or .. in it", True),
    (spec(files=[{"path": "a\0b", "content": ""}]), "spec.files[0].path: holds a NUL character", True),
    (spec(files=[{"path": "x" * 256, "content": ""}]), "is too long (255 bytes a part, 4095 in all)", False),
    (spec(files=[{"path": "a"}]), "spec.files[0]: has no content; exactly one of content, from", True),
    (spec(files=[{"path": "a", "content": "", "link": "b"}]), "spec.files[0]: has content and link; exactly one", True),
    (spec(files=[{"path": "a", "sha256": "0" * 64}]), "spec.files[0]: sha256 and size go together", True),
    (spec(files=[{"path": "a", "content": "", "size": 0}]), "spec.files[0]: sha256 and size go together", True),
    (spec(files=[{"path": "a", "sha256": "0" * 63, "size": 0}]), "is not a SHA-256", True),
    (spec(files=[{"path": "a", "from": "/etc/passwd"}]), "is absolute; write it relative to the manifest", True),
    (spec(files=[{"path": "a", "from": "../x"}]), "has an empty part, . or .. in it", True),
    (spec(files=[{"path": "a", "link": "/etc/passwd"}]), "is no target of a link", True),
    (spec(files=[{"path": "a", "link": "../x"}]), 'spec.files[0].link: "../x" leads out of the workspace', False),
    (spec(files=[{"path": "a/b", "link": "x/../../../y"}]), "leads out of the workspace", False),
    (spec(files=[{"path": "a", "link": "b", "mode": "0644"}]), "a link has no mode of its own", False),
    (spec(files=[{"path": "a", "content": 5}]), "spec.files[0].content: 5 is not text", True),
    (spec(files=[{"path": "a", "content": "", "mode": 644}]), "spec.files[0].mode: 644 is a number; write the", True),
    (spec(files=[{"path": "a", "content": "", "mode": "0999"}]), 'spec.files[0].mode: "0999" is not a file mode', True),
    (spec(files=[{"path": "a", "content": "", "mode": "4755"}]), "is not a file mode", True),
    (spec(files=[{"path": "a", "content": ""}] * 2), 'spec.files[1].path: "a" is given twice', False),
    (
        spec(files=[{"path": "a/b/c", "content": ""}, {"path": "a", "content": ""}]),
        'spec.files[0].path: "a/b/c" lies below "a", which is a file too',
        False,
    ),
    (spec(files=[{"path": f"f{i}", "content": ""} for i in range(1001)]), "the list has more than 1000 items", True),
    (spec(limits=None), "spec.limits: null is not a mapping", True),
    (
        spec(limits={"cpu": "fast"}),
        'spec.limits.cpu: "fast" is not a CPU amount (use 150% or 1.5, a number of cores)',
        True,
    ),
    (spec(limits={"cpu": 0}), "spec.limits.cpu: 0 is out of range (1% to 819200%)", True),
    (spec(limits={"cpu": "0.5%"}), 'spec.limits.cpu: "0.5%" is out of range', False),
    (spec(limits={"cpu": -1}), "is out of range", True),
    (spec(limits={"cpu": 1e400}), "not JSON", False),
    (spec(limits={"cpus": 2}), 'spec.limits.cpus: 2 is a number; write a list of cores in quotes: "2"', True),
    (spec(limits={"cpus": "0,a"}), 'spec.limits.cpus: "0,a" is not a list of cores', True),
    (spec(limits={"cpus": "3-1"}), "3-1 runs backwards", False),
    (spec(limits={"cpus": "9000"}), "there is no core 9000", False),
    (spec(limits={"memory": "512MB"}), 'spec.limits.memory: "512MB" is not a size', True),
    (spec(limits={"memory": 1.5}), "spec.limits.memory: 1.5 is not a size", True),
    (spec(limits={"memory": "0.1"}), "is not a whole number of bytes", True),
    (spec(limits={"memory": "1Ki"}), 'spec.limits.memory: "1Ki" is too small (at least 1Mi)', False),
    (spec(limits={"memory": 1024}), "is too small (at least 1Mi)", True),
    (spec(limits={"memory": -1}), "is out of range", True),
    (spec(limits={"memory": "9999999999Ti"}), "is out of range", False),
    (spec(limits={"memory": None}), "spec.limits.memory: null is not a size", True),
    (spec(limits={"memory": True}), "spec.limits.memory: true is not a size", True),
    (spec(limits={"pids": 0}), "spec.limits.pids: 0 is out of range (1 to 4194304)", True),
    (spec(limits={"pids": "12"}), 'spec.limits.pids: "12" is not a whole number; write it without quotes', True),
    (spec(limits={"pids": 1.5}), "spec.limits.pids: 1.5 is not a whole number", True),
    (spec(limits={"io": None}), "spec.limits.io: null is not a mapping", True),
    (spec(limits={"io": {"readops": 1}}), 'unknown key "readops"; did you mean readOps?', True),
    (spec(limits={"io": {"readOps": 0}}), "spec.limits.io.readOps: 0 is out of range", True),
    (spec(limits={"disk": "1Ki"}), "is too small (at least 1Mi)", False),
    (spec(limits={"logs": 0}), "spec.limits.logs: 0 is too small (at least 4Ki)", True),
    (
        spec(limits={"enforcement": "Strict"}),
        '"Strict" is not allowed here; did you mean strict? (use strict, best-effort)',
        True,
    ),
    (spec(timeout=30), "spec.timeout: 30 has no unit (use 30s, 5m, 1h30m or 500ms)", True),
    (spec(timeout="30"), 'spec.timeout: "30" is not a duration', True),
    (spec(timeout=""), 'spec.timeout: "" is not a duration', True),
    (spec(timeout="0s"), 'spec.timeout: "0s" is too short (at least 1ms)', False),
    (spec(timeout="-5s"), "is not a duration", True),
    (spec(timeout="1m1h"), "is not a duration", True),
    (spec(timeout="90000d"), "is longer than a hundred years", False),
    (spec(timeout="1m", attemptTimeout="2m"), 'spec.attemptTimeout: "2m" is longer than timeout, "1m"', False),
    (spec(stop={"signal": "TERM"}), 'spec.stop.signal: "TERM" is not a signal; did you mean SIGTERM?', True),
    (spec(stop={"signal": 15}), "spec.stop.signal: 15 is not a signal's name", True),
    (spec(stop={"signal": "SIGSTOP"}), 'spec.stop.signal: "SIGSTOP" is not a signal', True),
    (spec(stop={"grace": 10}), "spec.stop.grace: 10 has no unit", True),
    (spec(retry={"limit": -1}), "spec.retry.limit: -1 is out of range", True),
    (spec(retry={"limit": 1}, restart="Always"), "spec.retry.limit: works only with restart: Never", True),
    (
        spec(retry={"initial": "10m"}),
        "spec.retry.initial: the first pause (initial) is longer than the longest (max)",
        False,
    ),
    (spec(retry={"max": "1s"}), "spec.retry.max: the first pause (initial) is longer than the longest (max)", False),
    (spec(retry={"onExitCodes": [0]}), "spec.retry.onExitCodes[0]: 0 is out of range (1 to 255)", True),
    (spec(retry={"onExitCodes": 1}), "spec.retry.onExitCodes: 1 is not a list", True),
    (spec(retry={"onExitCodes": [1, 1]}), "spec.retry.onExitCodes[1]: 1 is given twice", True),
    (
        spec(retry={"onExitCodes": [1], "neverOnExitCodes": [2, 1]}),
        "spec.retry.neverOnExitCodes[1]: 1 stands in",
        False,
    ),
    (spec(restart="never"), '"never" is not allowed here; did you mean Never? (use Never, OnFailure, Always)', True),
    (spec(isolation={"network": "Back end"}), 'spec.isolation.network: "Back end" is not a name', True),
    (
        spec(limits={"network": {"in": "1M"}}),
        "works only with a network of the job's own, not with network: none",
        False,
    ),
    (
        spec(limits={"network": {"out": "1M"}}, isolation={"network": "host"}),
        "spec.limits.network: works only with a network of the job's own, not with network: host",
        False,
    ),
    (spec(isolation={"user": 70_000}), "spec.isolation.user: 70000 is out of range (0 to 65535)", True),
    (spec(isolation={"hostname": "a_b"}), 'spec.isolation.hostname: "a_b" is not a host name', True),
    (spec(isolation={"capabilities": ["CAP_CHOWN"]}), '"CAP_CHOWN" is not a capability; did you mean CHOWN?', True),
    (spec(isolation={"capabilities": ["CHOWN", "CHOWN"]}), '"CHOWN" is given twice', False),
    (
        spec(isolation={"seccomp": "unconfind"}),
        "did you mean unconfined? (use default, strict, unconfined, or a profile's path)",
        True,
    ),
    (spec(isolation={"seccomp": "/profiles/../p"}), "has an empty part, . or .. in it", True),
    (spec(isolation={"group": -1}), "spec.isolation.group: -1 is out of range (0 to 65535)", True),
    (spec(isolation={"rootfs": "image"}), 'spec.isolation.rootfs: "image" is not an absolute path', True),
    (spec(history={"keep": 0}), "spec.history.keep: 0 is out of range (1 to 10000)", True),
    (spec(history={"for": "forever"}), 'spec.history.for: "forever" is not a duration', True),
    (spec(suspend="yes"), 'spec.suspend: "yes" is not true or false', True),
    (spec(suspend=1), "spec.suspend: 1 is not true or false", True),
    (spec(schedules={"cron": "* * * * *"}), 'spec.schedules: unknown key "schedules"; did you mean schedule?', True),
]


@pytest.mark.parametrize(("document", "message", "by_schema"), REFUSED, ids=[case[1][:60] for case in REFUSED])
def test_what_is_refused_is_named_and_refused_by_the_schema_too(
    document: dict[str, Any], message: str, by_schema: bool
) -> None:
    found = faults(document)
    assert any(message in fault for fault in found), found
    if by_schema:
        assert not SCHEMA.is_valid(document)


ACCEPTED = [
    spec(command=["x", "", "a\nb"]),
    spec(workdir="/"),
    spec(files=[{"path": "a/.b/c..d", "content": "\0", "mode": "600"}]),
    spec(files=[{"path": "a", "from": "./x/y"}, {"path": "b/c", "link": "../a"}]),
    spec(files=[{"path": "a", "sha256": "0" * 64, "size": 0}]),
    spec(limits={"cpu": "1.5", "memory": "1.5Gi", "swap": 0, "io": {}, "pids": 1}),
    spec(limits={"cpu": 0.01, "cpus": "0-3,7", "memory": 1 << 20, "disk": "1G"}),
    spec(timeout="1h30m", attemptTimeout="90.5s"),
    spec(stop={"signal": "SIGKILL", "grace": "0s"}),
    spec(restart="Always", retry={"limit": 0}),
    spec(isolation={"capabilities": ["SYS_PTRACE"], "hostname": "a.b-c.D", "rootfs": "/srv"}),
    spec(isolation={"user": 1000, "group": 100, "seccomp": "strict", "rootfs": "/images/debian.tar.zst"}),
    spec(isolation={"seccomp": "/profiles/p.json"}),
    raw(script="#!/bin/sh\necho\n"),
    with_metadata(labels={"example.org/team": "", "a": "B.c_d-e"}, annotations={"x": "any\ntext"}),
]


@pytest.mark.parametrize("document", ACCEPTED, ids=range(len(ACCEPTED)))
def test_what_is_accepted_is_accepted_by_the_schema_too(document: dict[str, Any]) -> None:
    assert faults(document) == []
    SCHEMA.validate(document)


def test_a_field_s_fault_does_not_hide_a_broken_rule() -> None:
    found = faults(spec(script="x", timeout="1s", attemptTimeout="2s", limits={"pids": 0}))
    assert [fault.split(":")[0] for fault in sorted(found)] == [
        "spec.attemptTimeout",
        "spec.limits.pids",
        "spec.script",
    ]
