"""From the flags of ``rnx run`` to a manifest: the same thing that a person would have written, as JSON."""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rnx.failures import InvalidRequest
from rnx.uploads import LocalContent, look_at, of_directory

FILENAME = "rnx-run.json"
_SUFFIX_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_UNSUITABLE = re.compile(r"[^a-z0-9]+")

# Where a field of the manifest comes from, so that its errors name the flag.
FLAGS = {
    "metadata.name": "--name",
    "metadata.labels": "--label",
    "spec.command": "CMD",
    "spec.env": "--env",
    "spec.workdir": "--workdir",
    "spec.files": "--upload",
    "spec.secrets": "--secret",
    "spec.timeout": "--timeout",
    "spec.schedule": "--schedule",
    "spec.priority": "--priority",
    "spec.volumes": "--volume",
    "spec.limits.cpu": "--max-cpu",
    "spec.limits.memory": "--max-memory",
    "spec.limits.io": "--max-iobps",
    "spec.limits.cpus": "--cpu-cores",
    "spec.isolation.network": "--network",
    "spec.executor": "--executor",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFlags:
    """What was asked for. Limits of 0 are no limits. max_memory: MiB. max_iobps: bytes a second."""

    command: Sequence[str]
    name: str | None = None
    max_cpu: int = 0
    max_memory: int = 0
    max_iobps: int = 0
    cpu_cores: str | None = None
    network: str = "none"
    env: Sequence[str] = ()
    labels: Sequence[str] = ()
    workdir: str | None = None
    uploads: Sequence[str] = ()
    upload_directories: Sequence[str] = ()
    timeout: str | None = None
    priority: int | None = None
    volumes: Sequence[str] = ()
    secrets: Sequence[str] = ()
    schedule: str | None = None
    executor: str | None = None


def compose(flags: RunFlags) -> tuple[bytes, list[LocalContent]]:
    """The manifest, and the contents that it names. Raises InvalidRequest for what cannot be said in one."""
    spec: dict[str, Any] = {"command": list(flags.command)}
    plain = {name: getattr(flags, name) for name in ("workdir", "timeout", "priority", "executor")}
    spec |= {name: value for name, value in plain.items() if value not in (None, "")}
    if flags.env:
        spec["env"] = dict(pairs("--env", flags.env))
    files, contents = uploads_of(flags)
    if files:
        spec["files"] = files
    if flags.secrets:
        spec["secrets"] = [secret_use(text) for text in flags.secrets]
    if flags.schedule is not None:
        spec["schedule"] = {"at": time_of(flags.schedule, time.time())}
    if flags.volumes:
        spec["volumes"] = [volume_use(text) for text in flags.volumes]
    if limits := limits_of(flags):
        spec["limits"] = limits
    if flags.network != "none":
        spec["isolation"] = {"network": flags.network}
    metadata: dict[str, Any] = {"name": flags.name or unique_name(flags.command[0])}
    if flags.labels:
        metadata["labels"] = dict(pairs("--label", flags.labels))
    manifest = {"apiVersion": "joblet/v1", "kind": "Job", "metadata": metadata, "spec": spec}
    data = json.dumps(manifest).encode()
    return data, contents


def time_of(text: str, now: float) -> str:
    """The time that ``--schedule`` names: RFC 3339, or so much later than now. Raises InvalidRequest."""
    from joblet.manifest.quantities import parse_duration
    from joblet.manifest.schedule_values import format_moment, parse_moment

    try:
        moment = parse_moment(text) if "-" in text else math.ceil(now + parse_duration(text))
    except ValueError as error:
        todo = "write how long from now, 90s, 5m or 1h30m, or when: 2027-01-31T02:00:00Z"
        raise InvalidRequest(f"--schedule: {error}", todo=todo) from None
    if moment <= now:
        raise InvalidRequest(f"--schedule {text}: that time is over", todo="leave it out to run the command now")
    return format_moment(moment)


def limits_of(flags: RunFlags) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    if flags.max_cpu:
        limits["cpu"] = f"{flags.max_cpu}%"
    if flags.cpu_cores:
        limits["cpus"] = flags.cpu_cores
    if flags.max_memory:
        limits["memory"] = f"{flags.max_memory}Mi"
    if flags.max_iobps:
        limits["io"] = {"read": flags.max_iobps, "write": flags.max_iobps}
    return limits


def unique_name(command: str) -> str:
    """The command's name with a random end: ``python3-x7k2p``."""
    word = _UNSUITABLE.sub("-", os.path.basename(command).lower()).strip("-")[:57].rstrip("-") or "job"
    return f"{word}-{''.join(secrets.choice(_SUFFIX_ALPHABET) for _ in range(5))}"


def pairs(flag: str, texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InvalidRequest(f"{flag} {text}: there is no value", todo=f"write {flag} NAME=VALUE")
        yield key, value


def volume_use(text: str) -> dict[str, Any]:
    """``NAME``, ``NAME:PATH`` or ``NAME:PATH:ro``; without a path it is seen where Go Joblet had it."""
    name, *rest = text.split(":")
    if not name or len(rest) > 2 or "" in rest or rest[1:] not in ([], ["ro"], ["rw"]):
        raise InvalidRequest(f"--volume {text}: is not a volume", todo="write NAME, NAME:PATH or NAME:PATH:ro")
    use: dict[str, Any] = {"name": name, "path": rest[0] if rest else f"/volumes/{name}"}
    return {**use, "readOnly": True} if rest[1:] == ["ro"] else use


def secret_use(text: str) -> dict[str, str]:
    """``NAME``, ``NAME/KEY``, either with ``:VARIABLE`` behind it."""
    what, colon, variable = text.partition(":")
    name, slash, key = what.partition("/")
    if not name or (slash and not key) or (colon and not variable):
        raise InvalidRequest(f"--secret {text}: a part is empty", todo="write NAME, NAME/KEY, NAME:VARIABLE")
    use = {"name": name}
    if key:
        use["key"] = key
    if variable:
        use["env"] = variable
    return use


def uploads_of(flags: RunFlags) -> tuple[list[dict[str, Any]], list[LocalContent]]:
    """Each file under its own name, what is in each directory under its path from there; and their contents."""
    files: list[dict[str, Any]] = []
    contents: list[LocalContent] = []
    for path in flags.uploads:
        content = look_at(path, f"--upload {path}")
        files.append(content.entry(os.path.basename(path)))
        contents.append(content)
    for path in flags.upload_directories:
        entries, below = of_directory(path, f"--upload-dir {path}")
        files += entries
        contents += below
    return files, contents


def name_flags(text: str) -> str:
    """An error about the composed manifest, told in terms of the flags it was composed from."""
    lines = []
    for line in text.splitlines():
        bare = re.sub(rf"^{re.escape(FILENAME)}:\d+:\d+: ", "", line)
        path, colon, rest = bare.partition(": ")
        flag = next(
            (flag for field, flag in FLAGS.items() if path == field or path.startswith((field + ".", field + "["))),
            None,
        )
        lines.append(f"{flag}: {rest}" if flag and colon else bare)
    return "\n".join(lines)
