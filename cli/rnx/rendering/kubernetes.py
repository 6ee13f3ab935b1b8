"""A job as Kubernetes' batch/v1 Job, or CronJob where it has a schedule. See docs/KUBERNETES.md for what each field becomes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from joblet.manifest import JobManifest, Network, Restart
from joblet.manifest.canonical import plain
from rnx.rendering.findings import Finding, Ledger
from rnx.rendering.kubernetes_pod import PodParts, container_of
from rnx.rendering.kubernetes_schedule import cron_spec

DEFAULT_IMAGE = "docker.io/library/debian:12-slim"
NAME_LABEL = "joblet.dev/job"
LONGEST_CRON_JOB_NAME = 52
NO_END = 2**31 - 1  # the largest backoffLimit
DEFAULT_RETRY = (10.0, 300.0)

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rendered:
    """documents: none, if the job has no counterpart at all; the findings say why then."""

    name: str
    documents: tuple[Document, ...]
    findings: tuple[Finding, ...]

    @property
    def lost(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.lost)


def render_job(manifest: JobManifest, image: str | None = None) -> Rendered:
    """image: what its container runs in, which Joblet has no word for."""
    ledger = Ledger(plain(manifest).get("spec", {}))
    name = manifest.metadata.name
    documents: list[Document] = []
    if manifest.spec.restart is Restart.ALWAYS:
        ledger.lost("restart", "Always is a service: batch/v1 has none, a Deployment is what is meant")
        return Rendered(name, (), tuple(finding for finding in ledger.findings))
    ledger.keep("restart")
    parts = container_of(manifest, ledger, image or DEFAULT_IMAGE)
    _image(manifest, ledger, image)
    labels = {**manifest.metadata.labels, NAME_LABEL: name}
    metadata = _metadata(manifest, labels)
    spec = _job_spec(manifest, ledger, parts, labels)
    _not_in_kubernetes(ledger)
    if parts.files:
        files = {"name": f"{name}-files", "labels": labels}
        documents.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": files, "data": parts.files})
    if manifest.spec.isolation.network is Network.NONE:
        documents.append(_no_network(name, labels))
    if manifest.spec.schedule is None:
        documents.append({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec})
    elif (cron := cron_spec(manifest, ledger)) is not None:
        if len(name) > LONGEST_CRON_JOB_NAME:
            ledger.differs("schedule", f"a CronJob's name has at most {LONGEST_CRON_JOB_NAME} characters: rename it")
        template = {"metadata": {"labels": labels}, "spec": spec}
        documents.append(
            {
                "apiVersion": "batch/v1",
                "kind": "CronJob",
                "metadata": metadata,
                "spec": {**cron, "jobTemplate": template},
            }
        )
    else:
        documents.clear()
    return Rendered(name, tuple(documents), tuple(ledger.close()))


def _metadata(manifest: JobManifest, labels: Mapping[str, str]) -> Document:
    annotations = dict(manifest.metadata.annotations)
    given: Document = {"name": manifest.metadata.name, "labels": dict(labels)}
    return {**given, "annotations": annotations} if annotations else given


def _image(manifest: JobManifest, ledger: Ledger, image: str | None) -> None:
    rootfs = manifest.spec.isolation.rootfs
    if rootfs != "host":
        ledger.lost("isolation.rootfs", f"{rootfs} is no image: make one of it, and name that by --image")
    elif image is None:
        ledger.lost(
            "isolation.rootfs", f"what the host has installed is not there; the image is {DEFAULT_IMAGE} (--image)"
        )
    else:
        ledger.differs("isolation.rootfs", f"the system directories are those of {image}")


def _job_spec(manifest: JobManifest, ledger: Ledger, parts: PodParts, labels: Mapping[str, str]) -> Document:
    spec = manifest.spec
    on_failure = spec.restart is Restart.ON_FAILURE
    pod = {"restartPolicy": "OnFailure" if on_failure else "Never", **parts.pod}
    if spec.attempt_timeout_seconds is not None:
        if on_failure:
            ledger.lost("attemptTimeout", "a container that is restarted in its pod has no time limit of its own")
        else:
            ledger.keep("attemptTimeout")
            pod["activeDeadlineSeconds"] = _whole(spec.attempt_timeout_seconds, "attemptTimeout", ledger)
    found: Document = {"backoffLimit": NO_END if on_failure else spec.retry.limit}
    if spec.timeout_seconds is not None:
        ledger.keep("timeout")
        found["activeDeadlineSeconds"] = _whole(spec.timeout_seconds, "timeout", ledger)
    _retry(manifest, ledger, found, on_failure=on_failure)
    ledger.keep("history.for")
    found["ttlSecondsAfterFinished"] = int(spec.history.for_seconds)
    if spec.suspend and spec.schedule is None:
        ledger.keep("suspend")
        found["suspend"] = True
    return {**found, "template": {"metadata": {"labels": dict(labels)}, "spec": pod}}


def _retry(manifest: JobManifest, ledger: Ledger, found: Document, *, on_failure: bool) -> None:
    retry = manifest.spec.retry
    ledger.keep("retry.limit")
    if (retry.initial_seconds, retry.max_seconds) != DEFAULT_RETRY:
        ledger.lost("retry.initial", "the pauses are Kubernetes' own: 10s, doubled up to 6m")
        ledger.keep("retry.max")
    rules = []
    if retry.never_on_exit_codes:
        rules.append({"operator": "In", "values": list(retry.never_on_exit_codes)})
    if retry.on_exit_codes:
        rules.append({"operator": "NotIn", "values": list(retry.on_exit_codes)})
    paths = [path for path in ("retry.onExitCodes", "retry.neverOnExitCodes") if ledger.has(path)]
    if rules and on_failure:
        for path in paths:
            ledger.lost(path, "a podFailurePolicy needs restartPolicy: Never, so restart: Never here")
    elif rules:
        ledger.keep(*paths)
        found["podFailurePolicy"] = {"rules": [{"action": "FailJob", "onExitCodes": rule} for rule in rules]}


def _not_in_kubernetes(ledger: Ledger) -> None:
    """What has no place in a Job, wherever it stands."""
    for path, what in (
        ("dependsOn", "Jobs do not wait for each other: an engine of workflows does (Argo Workflows, Tekton)"),
        ("outputs", "a Job hands nothing on"),
        ("notify", "nobody is told of a Job's end but who watches it"),
        ("priority", "it would be the name of a PriorityClass, which the cluster's administrator declares"),
        ("history.logs", "the kubelet bounds kept output, for all containers alike"),
        ("executor", "Kubernetes runs it"),
        ("slurm", "placement is said by nodeSelector and affinity"),
        ("update", "there is no service to change"),
        ("probe", "a Job's containers are not probed for readiness; they end"),
    ):
        ledger.lost_if_set(path, what)
    if not ledger.has("schedule"):
        ledger.lost_if_set("history.keep", "Jobs go by age alone (ttlSecondsAfterFinished)")


def _no_network(name: str, labels: Mapping[str, str]) -> Document:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"{name}-no-network", "labels": dict(labels)},
        "spec": {"podSelector": {"matchLabels": {NAME_LABEL: name}}, "policyTypes": ["Ingress", "Egress"]},
    }


def _whole(seconds: float, path: str, ledger: Ledger) -> int:
    if seconds != int(seconds):
        ledger.differs(path, "rounded up to whole seconds")
    return math.ceil(seconds)
