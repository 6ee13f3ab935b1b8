"""The pod of a job: its one container, what it may use, what it sees."""

from __future__ import annotations

import math
import posixpath
from dataclasses import dataclass, field
from typing import Any

from joblet.manifest import Isolation, JobManifest, Network, Seccomp
from joblet.manifest.choices import Enforcement
from rnx.rendering.findings import Ledger

WORK, TMP, SECRETS = "/work", "/tmp", "/run/secrets"  # noqa: S108  places in the job, not here
SCRIPT = "/run/joblet/script"
SCRIPT_KEY = "script"
WRITE_ANYWHERE = frozenset({"SYS_ADMIN"})  # with which Kubernetes wants privilege escalation left on


@dataclass(slots=True)
class PodParts:
    """pod: its spec without restartPolicy. files: of a ConfigMap."""

    pod: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    volumes: list[dict[str, Any]] = field(default_factory=list)
    mounts: list[dict[str, Any]] = field(default_factory=list)


def container_of(manifest: JobManifest, ledger: Ledger, image: str) -> PodParts:
    """The pod with one container named ``job``."""
    spec = manifest.spec
    parts = PodParts()
    container: dict[str, Any] = {"name": "job", "image": image}
    container["command"] = _command(manifest, ledger, parts)
    ledger.keep("workdir", "env")
    container["workingDir"] = spec.workdir
    container["env"] = [{"name": "HOME", "value": WORK}] if "HOME" not in spec.env else []
    container["env"] += [{"name": name, "value": literal(value)} for name, value in spec.env.items()]
    if "JOBLET_" in " ".join((*(spec.command or ()), spec.script or "")):
        ledger.lost("script" if spec.script else "command", "it names variables JOBLET_..., which nobody sets there")
    if resources := _resources(manifest, ledger):
        container["resources"] = resources
    _workspace(manifest, ledger, parts)
    _files(manifest, ledger, parts)
    _volumes(manifest, ledger, parts)
    container["env"] += _secrets(manifest, ledger, parts)
    parts.pod |= {"automountServiceAccountToken": False, "enableServiceLinks": False}
    container["securityContext"] = _security(spec.isolation, ledger, parts)
    _stop(manifest, ledger, parts)
    container["volumeMounts"] = parts.mounts
    parts.pod |= {"containers": [container], "volumes": parts.volumes}
    return parts


def _command(manifest: JobManifest, ledger: Ledger, parts: PodParts) -> list[str]:
    spec = manifest.spec
    ledger.keep("command", "script")
    if spec.script is None:
        return [literal(argument) for argument in spec.command or ()]
    if not spec.script.startswith("#!"):
        return ["/bin/sh", "-euc", literal(spec.script)]
    parts.files[SCRIPT_KEY] = spec.script
    parts.mounts.append({"name": "files", "mountPath": SCRIPT, "subPath": SCRIPT_KEY, "readOnly": True})
    return [SCRIPT]


def literal(text: str) -> str:
    """As an argument or value that Kubernetes leaves alone: there ``$(NAME)`` is a variable's value, and ``$$`` a dollar."""
    return text.replace("$", "$$") if "$(" in text or "$$" in text else text


def _resources(manifest: JobManifest, ledger: Ledger) -> dict[str, Any]:
    """Limits; requests are the same, unless they are said, which Joblet has no word for."""
    limits = manifest.spec.limits
    found: dict[str, str] = {}
    if limits.cpu_percent is not None:
        ledger.keep("limits.cpu")
        found["cpu"] = f"{math.ceil(limits.cpu_percent * 10)}m"
    if limits.memory_bytes is not None:
        ledger.keep("limits.memory")
        found["memory"] = str(limits.memory_bytes)
    for path, what in (
        ("limits.cpus", "the kubelet's CPU manager chooses cores"),
        ("limits.swap", "swap is the kubelet's to give"),
        ("limits.pids", "the kubelet bounds processes, for all pods alike (podPidsLimit)"),
        ("limits.io", "there are no limits of I/O"),
        ("limits.network", "there are none but by annotations of some network plugins"),
        ("limits.logs", "the kubelet bounds kept output, for all containers alike"),
    ):
        ledger.lost_if_set(path, what)
    if limits.enforcement is Enforcement.BEST_EFFORT:
        ledger.differs("limits.enforcement", "what a node cannot enforce is not reported")
    return {"limits": found} if found else {}


def _workspace(manifest: JobManifest, ledger: Ledger, parts: PodParts) -> None:
    size = manifest.spec.limits.disk_bytes
    work: dict[str, Any] = {}
    if size is not None:
        ledger.differs("limits.disk", "who writes more is evicted, some time later, instead of seeing a full disk")
        work["sizeLimit"] = str(size)
    parts.volumes += [{"name": "work", "emptyDir": work}, {"name": "tmp", "emptyDir": {}}]
    parts.mounts += [{"name": "work", "mountPath": WORK}, {"name": "tmp", "mountPath": TMP}]


def _files(manifest: JobManifest, ledger: Ledger, parts: PodParts) -> None:
    """Each by a key of the ConfigMap, whose keys have no slashes."""
    items = [{"key": SCRIPT_KEY, "path": SCRIPT_KEY, "mode": 0o555}] if SCRIPT_KEY in parts.files else []
    for number, file in enumerate(manifest.spec.files):
        if file.content is None:
            what = "a link" if file.link is not None else "uploaded"
            ledger.lost("files", f"{file.path} is {what}: only texts of the manifest go into a ConfigMap")
            continue
        key = f"file-{number}"
        parts.files[key] = file.content
        items.append({"key": key, "path": key, "mode": file.mode})
        mount = {"name": "files", "mountPath": posixpath.join(WORK, file.path), "subPath": key, "readOnly": True}
        parts.mounts.append(mount)
    if manifest.spec.files:
        ledger.differs("files", "they are read-only, and belong to root")
    if items:
        name = f"{manifest.metadata.name}-files"
        parts.volumes.append({"name": "files", "configMap": {"name": name, "items": items}})


def _volumes(manifest: JobManifest, ledger: Ledger, parts: PodParts) -> None:
    for number, mount in enumerate(manifest.spec.volumes):
        name = f"volume-{number}"
        claim = {"claimName": mount.name, **({"readOnly": True} if mount.read_only else {})}
        parts.volumes.append({"name": name, "persistentVolumeClaim": claim})
        parts.mounts.append({"name": name, "mountPath": mount.path, **({"readOnly": True} if mount.read_only else {})})
    if manifest.spec.volumes:
        ledger.differs(
            "volumes", "claims of these names have to be there; whether several pods share one is its access mode's"
        )


def _secrets(manifest: JobManifest, ledger: Ledger, parts: PodParts) -> list[dict[str, Any]]:
    """Those that are files become mounts; returns those that are variables."""
    variables = []
    for number, use in enumerate(manifest.spec.secrets):
        if (use.env or use.path) and use.key is None:
            ledger.lost("secrets", f"{use.name}: which of its keys has to be said there: give it a key here")
        elif use.env:
            reference = {"secretKeyRef": {"name": use.name, "key": use.key}}
            variables.append({"name": use.env, "valueFrom": reference})
        else:
            name = f"secret-{number}"
            secret: dict[str, Any] = {"secretName": use.name, "defaultMode": 0o400}
            mount: dict[str, Any] = {"name": name, "mountPath": f"{SECRETS}/{use.name}", "readOnly": True}
            if use.key is not None:
                path = use.path or f"{use.name}/{use.key}"
                secret["items"] = [{"key": use.key, "path": use.key}]
                mount |= {"mountPath": f"{SECRETS}/{path}", "subPath": use.key}
            parts.volumes.append({"name": name, "secret": secret})
            parts.mounts.append(mount)
    if manifest.spec.secrets:
        ledger.differs("secrets", "Secrets of these names have to be there; who may read them says the cluster")
    return variables


def _security(isolation: Isolation, ledger: Ledger, parts: PodParts) -> dict[str, Any]:
    """As little as the sandbox allows."""
    ledger.keep("isolation.user", "isolation.group", "isolation.hostname", "isolation.capabilities")
    _network(isolation, ledger, parts)
    if isolation.hostname:
        parts.pod["hostname"] = isolation.hostname.partition(".")[0]
        if "." in isolation.hostname:
            ledger.differs("isolation.hostname", "without its domain")
    profile = "RuntimeDefault"
    if isolation.seccomp == Seccomp.UNCONFINED:
        profile = "Unconfined"
        ledger.keep("isolation.seccomp")
    elif isolation.seccomp != Seccomp.DEFAULT:
        ledger.lost("isolation.seccomp", f"{isolation.seccomp} is not there; RuntimeDefault is in force")
    ledger.lost_if_set("isolation.upkeep", "there is no daemon of Joblet's to ask")
    group = isolation.user if isolation.group is None else isolation.group
    return {
        "runAsUser": isolation.user,
        "runAsGroup": group,
        "readOnlyRootFilesystem": isolation.rootfs == "host",
        "allowPrivilegeEscalation": bool(WRITE_ANYWHERE & set(isolation.capabilities)),
        "capabilities": {
            "drop": ["ALL"],
            **({"add": list(isolation.capabilities)} if isolation.capabilities else {}),
        },
        "seccompProfile": {"type": profile},
    }


def _network(isolation: Isolation, ledger: Ledger, parts: PodParts) -> None:
    parts.pod["hostUsers"] = False  # a user namespace, as every sandbox has one
    match isolation.network:
        case Network.NONE:
            ledger.differs(
                "isolation.network",
                "a NetworkPolicy takes all traffic away, if the cluster's network plugin enforces it",
            )
        case Network.HOST:
            ledger.differs("isolation.network", "a pod with the host's network has no user namespace")
            parts.pod |= {"hostNetwork": True}
            del parts.pod["hostUsers"]
        case Network.BRIDGE | Network.ISOLATED:
            ledger.differs("isolation.network", "it is the cluster's network: every pod may connect to it")
        case _:
            ledger.lost("isolation.network", f"{isolation.network} is a network of Joblet's")


def _stop(manifest: JobManifest, ledger: Ledger, parts: PodParts) -> None:
    stop = manifest.spec.stop
    ledger.keep("stop.grace")
    grace = math.ceil(stop.grace_seconds)
    if grace != stop.grace_seconds:
        ledger.differs("stop.grace", "rounded up to whole seconds")
    parts.pod["terminationGracePeriodSeconds"] = grace
    if stop.signal != "SIGTERM":
        ledger.lost("stop.signal", "the image says which one (STOPSIGNAL)")
