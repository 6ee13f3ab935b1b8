"""From the flags of ``rnx run`` to a manifest: the same thing that a person would have written, as JSON."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnx.failures import InvalidRequest

MAX_MANIFEST_BYTES = 1 << 20
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
    "spec.timeout": "--timeout",
    "spec.volumes": "--volume",
    "spec.limits.cpu": "--max-cpu",
    "spec.limits.memory": "--max-memory",
    "spec.limits.io": "--max-iobps",
    "spec.limits.cpus": "--cpu-cores",
    "spec.isolation.network": "--network",
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
    volumes: Sequence[str] = ()


def compose(flags: RunFlags) -> bytes:
    """The manifest. Raises InvalidRequest for what cannot be said in one."""
    spec: dict[str, Any] = {"command": list(flags.command)}
    if flags.env:
        spec["env"] = dict(pairs("--env", flags.env))
    if flags.workdir:
        spec["workdir"] = flags.workdir
    if files := [*uploaded_files(flags.uploads), *uploaded_directories(flags.upload_directories)]:
        spec["files"] = files
    if flags.timeout:
        spec["timeout"] = flags.timeout
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
    if len(data) > MAX_MANIFEST_BYTES:
        raise InvalidRequest(
            f"the uploads make {len(data)} bytes, and a job may carry {MAX_MANIFEST_BYTES}",
            todo="put large files where the job can read them: on the host or in its rootfs",
        )
    return data


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


def uploaded_files(paths: Sequence[str]) -> Iterator[dict[str, str]]:
    """Each file under its own name."""
    for path in paths:
        if os.path.isdir(path):
            raise InvalidRequest(f"--upload {path}: is a directory", todo=f"use --upload-dir {path}")
        yield _file("--upload", path, os.path.basename(path))


def uploaded_directories(paths: Sequence[str]) -> Iterator[dict[str, str]]:
    """What is in each directory, under its path from there."""
    for path in paths:
        if not os.path.isdir(path):
            raise InvalidRequest(f"--upload-dir {path}: there is no such directory", todo="check the path")
        for directory, below, names in os.walk(path):
            below.sort()
            for name in sorted(names):
                full = os.path.join(directory, name)
                yield _file("--upload-dir", full, os.path.relpath(full, path).replace(os.sep, "/"))


def _file(flag: str, path: str, name: str) -> dict[str, str]:
    try:
        if os.stat(path).st_size > MAX_MANIFEST_BYTES:
            raise InvalidRequest(
                f"{flag} {path}: is larger than {MAX_MANIFEST_BYTES} bytes, which a job may carry in all",
                todo="put large files where the job can read them: on the host or in its rootfs",
            )
        content = Path(path).read_bytes()
        executable = os.access(path, os.X_OK)
    except OSError as error:
        raise InvalidRequest(f"{flag} {path}: {error.strerror}", todo="check the path") from error
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InvalidRequest(
            f"{flag} {path}: is not text; binary files cannot be uploaded yet",
            todo="put it where the job can read it, or encode it (base64) and decode it in the job",
        )
    return {"path": name, "mode": "0755" if executable else "0644", "content": text}


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
