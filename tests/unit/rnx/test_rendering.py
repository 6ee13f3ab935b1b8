"""What ``rnx render --to kubernetes`` prints: of the right shape for Kubernetes, and honest about what it cannot say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from joblet.manifest import JobManifest, read_manifests
from joblet.manifest.models import JobSpec
from rnx import exit_codes
from rnx.main import run
from rnx.rendering.findings import NOT_KNOWN, Ledger
from rnx.rendering.kubernetes import Rendered, render_job
from rnx.rendering.kubernetes_pod import literal

EXAMPLES = sorted(Path(__file__).parents[3].glob("examples/*.yml"))
Shape = Any
# As the API's reference has them: a type, a list of one shape, a mapping of fields, or a mapping from any name by "*".
TEXTS: Shape = {"*": str}
META: Shape = {"name": str, "labels": TEXTS, "annotations": TEXTS}
KEY_REF: Shape = {"name": str, "key": str}
ITEMS: Shape = [{"key": str, "path": str, "mode": int}]
CONTAINER: Shape = {
    "name": str,
    "image": str,
    "command": [str],
    "workingDir": str,
    "env": [{"name": str, "value": str, "valueFrom": {"secretKeyRef": KEY_REF}}],
    "resources": {"limits": TEXTS},
    "volumeMounts": [{"name": str, "mountPath": str, "subPath": str, "readOnly": bool}],
    "securityContext": {
        "runAsUser": int,
        "runAsGroup": int,
        "readOnlyRootFilesystem": bool,
        "allowPrivilegeEscalation": bool,
        "capabilities": {"drop": [str], "add": [str]},
        "seccompProfile": {"type": str},
    },
}
POD: Shape = {
    "restartPolicy": str,
    "activeDeadlineSeconds": int,
    "terminationGracePeriodSeconds": int,
    "automountServiceAccountToken": bool,
    "enableServiceLinks": bool,
    "hostUsers": bool,
    "hostNetwork": bool,
    "hostname": str,
    "containers": [CONTAINER],
    "volumes": [
        {
            "name": str,
            "emptyDir": {"sizeLimit": str},
            "configMap": {"name": str, "items": ITEMS},
            "persistentVolumeClaim": {"claimName": str, "readOnly": bool},
            "secret": {"secretName": str, "defaultMode": int, "items": [KEY_REF | {"path": str}]},
        }
    ],
}
JOB_SPEC: Shape = {
    "backoffLimit": int,
    "activeDeadlineSeconds": int,
    "ttlSecondsAfterFinished": int,
    "suspend": bool,
    "podFailurePolicy": {"rules": [{"action": str, "onExitCodes": {"operator": str, "values": [int]}}]},
    "template": {"metadata": META, "spec": POD},
}
CRON_SPEC: Shape = {
    "schedule": str,
    "timeZone": str,
    "concurrencyPolicy": str,
    "startingDeadlineSeconds": int,
    "suspend": bool,
    "successfulJobsHistoryLimit": int,
    "failedJobsHistoryLimit": int,
    "jobTemplate": {"metadata": META, "spec": JOB_SPEC},
}
SHAPES: dict[tuple[str, str], Shape] = {
    ("batch/v1", "Job"): {"spec": JOB_SPEC},
    ("batch/v1", "CronJob"): {"spec": CRON_SPEC},
    ("v1", "ConfigMap"): {"data": TEXTS},
    ("networking.k8s.io/v1", "NetworkPolicy"): {
        "spec": {"podSelector": {"matchLabels": TEXTS}, "policyTypes": [str]},
    },
}


def faults(value: Any, shape: Shape, path: str = "") -> Iterator[str]:
    """Where it is not of that shape."""
    if isinstance(shape, type):
        if type(value) is not shape:
            yield f"{path}: {value!r} is no {shape.__name__}"
    elif isinstance(shape, list):
        assert isinstance(value, list), path
        for number, one in enumerate(value):
            yield from faults(one, shape[0], f"{path}[{number}]")
    else:
        assert isinstance(value, Mapping), path
        for name, one in value.items():
            if name in shape or "*" in shape:
                yield from faults(one, shape.get(name, shape.get("*")), f"{path}.{name}")
            else:
                yield f"{path}.{name}: unknown"


def check_document(document: Mapping[str, Any]) -> None:
    shape = SHAPES[document["apiVersion"], document["kind"]]
    whole = {"apiVersion": str, "kind": str, "metadata": META, **shape}
    assert list(faults(document, whole)) == []
    spec = document.get("spec", {})
    job = spec["jobTemplate"]["spec"] if document["kind"] == "CronJob" else spec
    if "template" in job:
        pod = job["template"]["spec"]
        assert pod["restartPolicy"] in ("Never", "OnFailure")
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = pod["containers"][0]["volumeMounts"]
        assert {mount["name"] for mount in mounts} == set(volumes)
        assert len({mount["mountPath"] for mount in mounts}) == len(mounts)
        assert all(len(volume) == 2 for volume in volumes.values())  # its name and one kind
        if "podFailurePolicy" in job:
            assert pod["restartPolicy"] == "Never"


def job(spec: str, name: str = "one") -> JobManifest:
    text = f"apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    manifest = read_manifests(text.encode(), filename="test")[0]
    assert isinstance(manifest, JobManifest)
    return manifest


def rendered(spec: str, image: str | None = "an/image") -> Rendered:
    result = render_job(job(spec), image)
    for document in result.documents:
        check_document(document)
    return result


def main_of(result: Rendered) -> dict[str, Any]:
    return result.documents[-1]["spec"]  # type: ignore[no-any-return]


def pod_of(result: Rendered) -> dict[str, Any]:
    return main_of(result)["template"]["spec"]  # type: ignore[no-any-return]


def lost(result: Rendered) -> set[str]:
    return {finding.path.removeprefix("spec.") for finding in result.lost}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_rendered_in_kubernetes_shape_or_said_to_have_none(path: Path) -> None:
    for manifest in read_manifests(path.read_bytes(), filename=path.name):
        if isinstance(manifest, JobManifest):
            result = render_job(manifest)
            for document in result.documents:
                check_document(document)
            assert result.documents or result.lost


def test_a_plain_job_becomes_a_job_with_nothing_lost() -> None:
    result = rendered(
        "command: [echo, hi], env: {A: b}, limits: {cpu: 150%, memory: 64Mi}, timeout: 90s, retry: {limit: 2}"
    )
    assert lost(result) == set()
    spec, container = main_of(result), pod_of(result)["containers"][0]
    assert (spec["activeDeadlineSeconds"], spec["backoffLimit"]) == (90, 2)
    assert container["resources"] == {"limits": {"cpu": "1500m", "memory": str(64 << 20)}}
    assert container["command"] == ["echo", "hi"]
    assert {"name": "A", "value": "b"} in container["env"]


def test_the_sandbox_becomes_a_security_context() -> None:
    pod = pod_of(rendered("command: ['true'], isolation: {user: 1000, capabilities: [NET_ADMIN]}"))
    context = pod["containers"][0]["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"]) == (1000, 1000)
    assert context["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN"]}
    assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
    assert pod["hostUsers"] is False


def test_no_network_is_a_policy_that_lets_nothing_through() -> None:
    result = rendered("command: ['true']")
    policy = result.documents[0]
    assert policy["kind"] == "NetworkPolicy"
    labels = policy["spec"]["podSelector"]["matchLabels"]
    assert labels.items() <= main_of(result)["template"]["metadata"]["labels"].items()
    assert [document["kind"] for document in rendered("command: ['true'], isolation: {network: bridge}").documents] == [
        "Job"
    ]


def test_what_does_not_map_is_named_field_by_field() -> None:
    result = rendered(
        "command: ['true'], limits: {cpus: '0', pids: 5, io: {read: 1Mi}, logs: 1Mi}, dependsOn: [{job: two}], outputs: [a], "
        "priority: 60, stop: {signal: SIGINT}, retry: {limit: 1, initial: 1s}, isolation: {seccomp: strict}"
    )
    assert lost(result) == {
        "limits.cpus",
        "limits.pids",
        "limits.io",
        "limits.logs",
        "dependsOn",
        "outputs",
        "priority",
        "stop.signal",
        "retry.initial",
        "isolation.seccomp",
    }


def test_a_field_that_nobody_has_dealt_with_is_lost() -> None:
    ledger = Ledger({"command": ["a"], "limits": {"memory": "1Mi", "novelty": 3}, "new": {}})
    ledger.keep("command", "limits.memory")
    assert [(finding.path, finding.what) for finding in ledger.close()] == [
        ("spec.limits.novelty", NOT_KNOWN),
        ("spec.new", NOT_KNOWN),
    ]
    assert JobSpec.model_fields  # what the ledger is given is a dump of it


def test_exit_codes_become_a_pod_failure_policy() -> None:
    rules = main_of(rendered("command: [a], retry: {limit: 3, onExitCodes: [75, 1], neverOnExitCodes: [2]}"))[
        "podFailurePolicy"
    ]
    assert [rule["onExitCodes"] for rule in rules["rules"]] == [
        {"operator": "In", "values": [2]},
        {"operator": "NotIn", "values": [1, 75]},
    ]
    assert lost(rendered("command: [a], restart: OnFailure, retry: {onExitCodes: [1]}")) == {"retry.onExitCodes"}


def test_files_and_a_script_with_an_interpreter_lie_in_a_config_map() -> None:
    result = rendered(
        "script: \"#!/usr/bin/python3\\nprint('$(X)')\\n\", files: [{path: lib/a.txt, content: hello, mode: '0600'}]"
    )
    config = result.documents[0]
    assert config["data"] == {"script": "#!/usr/bin/python3\nprint('$(X)')\n", "file-0": "hello"}
    container = pod_of(result)["containers"][0]
    assert container["command"] == ["/run/joblet/script"]
    assert [mount["mountPath"] for mount in container["volumeMounts"]][:4] == [
        "/run/joblet/script",
        "/work",
        "/tmp",
        "/work/lib/a.txt",
    ]
    assert "files" in lost(rendered("command: [a], files: [{path: a, link: b}]"))


def test_dollars_arrive_as_they_are() -> None:
    assert literal("plain $HOME") == "plain $HOME"
    assert pod_of(rendered("script: 'echo $(date) $$'"))["containers"][0]["command"][2] == "echo $$(date) $$$$"

    def expanded(text: str) -> str:
        """As Kubernetes does it, where no variable is known."""
        return re.sub(r"\$(\$|\([A-Za-z_]+\))", lambda match: "$" if match[1] == "$" else match[0], text)

    for text in ("$(date)", "$$(date)", "a$$b", "$$$(x)", "$x $(y)"):
        assert expanded(literal(text)) == text


def test_secrets_and_volumes_are_referred_to_by_name() -> None:
    result = rendered(
        "command: [a], secrets: [{name: db, key: pw, env: PGPASSWORD}, {name: tls}, {name: api, key: token, path: t/api}], "
        "volumes: [{name: data, path: /data, readOnly: true}]"
    )
    assert lost(result) == set()
    mounts = {mount["mountPath"]: mount for mount in pod_of(result)["containers"][0]["volumeMounts"]}
    assert mounts["/data"]["readOnly"] and "/run/secrets/tls" in mounts
    assert mounts["/run/secrets/t/api"]["subPath"] == "token"
    assert lost(rendered("command: [a], secrets: [{name: db, env: PW}]")) == {"secrets"}


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cron: '0 2 * * MON-FRI'", "0 2 * * MON-FRI"),
        ("cron: '@daily'", "0 0 * * *"),
        ("cron: '0 0 1 JUL *'", "0 0 1 JUL *"),
        ("every: 15m", "*/15 * * * *"),
        ("every: 6h", "0 */6 * * *"),
        ("every: 24h", "0 0 * * *"),
    ],
)
def test_a_schedule_becomes_a_cron_job(schedule: str, expected: str) -> None:
    result = rendered(
        f"command: [a], schedule: {{{schedule}, overlap: Replace, startingDeadline: 5m}}, history: {{keep: 3}}"
    )
    assert lost(result) == set()
    spec = main_of(result)
    assert (spec["schedule"], spec["concurrencyPolicy"], spec["startingDeadlineSeconds"]) == (expected, "Replace", 300)
    assert (spec["timeZone"], spec["successfulJobsHistoryLimit"]) == ("UTC", 3)


@pytest.mark.parametrize(
    "schedule",
    ["cron: '*/10 0 2 * * *'", "cron: '0 2 L * *'", "cron: '0 2 * * 5#3'", "cron: '0 2 * * 7'", "every: 7m", "every: 30s",
     "at: '2030-01-01T00:00:00Z'"],
)  # fmt: skip
def test_a_schedule_that_no_cron_job_has_is_not_rendered_at_all(schedule: str) -> None:
    result = rendered(f"command: [a], schedule: {{{schedule}}}")
    assert result.documents == ()
    assert "schedule" in lost(result)


def test_a_service_is_not_rendered() -> None:
    result = rendered("command: [a], restart: Always")
    assert result.documents == () and lost(result) == {"restart"}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "job.yml"
    path.write_text(
        "apiVersion: joblet/v1\nkind: Job\nmetadata: {name: one}\nspec: {command: [a], limits: {pids: 5}}\n"
    )
    return path


def test_the_command_prints_yaml_with_each_loss_in_a_comment(
    manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["render", "--to", "kubernetes", "-f", str(manifest), "--image", "an/image"]) == exit_codes.OK
    text = capsys.readouterr().out
    assert "# lost: spec.limits.pids: " in text
    for document in YAML(typ="safe").load_all(text):
        check_document(document)


def test_strict_prints_nothing_but_what_would_be_lost(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["render", "--to", "kubernetes", "-f", str(manifest), "--image", "an/image", "--strict"]
    assert run(arguments) == exit_codes.INVALID
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "spec.limits.pids" in shown.err and "without --strict" in shown.err
    manifest.write_text(manifest.read_text().replace(", limits: {pids: 5}", ""))
    assert run(arguments) == exit_codes.OK
