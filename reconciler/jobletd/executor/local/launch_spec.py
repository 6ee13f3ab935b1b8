"""From a manifest to the launch spec that launcher and init carry out: pure, but for the files that a manifest names."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from joblet.cgroup import CgroupLimits, CgroupPlan, IoLimits
from joblet.cgroup.hierarchy import readable_size
from joblet.errors import JobletError
from joblet.manifest import FileSpec, JobManifest, Limits, Network
from joblet.manifest.schedule_values import format_moment
from joblet.sandbox.redaction import pieces_of
from joblet.trace_context import as_variables
from jobletd.executor import AttemptRequest, GivenSecrets
from jobletd.executor.local.etc_files import etc_files, group_of, user_name
from jobletd.executor.local.seccomp_choice import seccomp_of

VERSION = 1
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SCRIPT = "/run/joblet/script"
OUTPUTS = "/work/outputs"
TMP_BYTES = 256 << 20
NO_LIMIT = 2**64 - 1
# Whatever limits the daemon itself was started with. What is locked, queued or pending lies in the kernel's memory.
RLIMITS = {
    **{"NOFILE": [1024, 524288], "CORE": [0, 0], "MEMLOCK": [8 << 20, 8 << 20], "MSGQUEUE": [819200, 819200]},
    **{"SIGPENDING": [16384, 16384], "NICE": [0, 0], "RTPRIO": [0, 0]},
}


class NotAVariable(JobletError):
    """A secret that cannot stand in the environment."""


def cgroup_limits(limits: Limits, device: str | None) -> CgroupLimits:
    """What the manifest asks of the cgroup. device: the workspace's disk, needed if I/O is limited."""
    io = None
    if limits.io is not None and device is not None:
        io = IoLimits(
            device=device,
            read_bytes=limits.io.read_bytes,
            write_bytes=limits.io.write_bytes,
            read_ops=limits.io.read_ops,
            write_ops=limits.io.write_ops,
        )
    return CgroupLimits(
        cpu_percent=limits.cpu_percent,
        cpus=limits.cpus,
        memory_bytes=limits.memory_bytes,
        swap_bytes=limits.swap_bytes,
        pids=limits.pids,
        io=io,
    )


def without(limits: CgroupLimits, names: frozenset[str]) -> CgroupLimits:
    """The same without these limits."""
    fields = {"cpu": "cpu_percent", "cpus": "cpus", "memory": "memory_bytes", "pids": "pids", "io": "io"}
    left_out: dict[str, int | None] = {fields[name]: None for name in names if name in fields}
    if "swap" in names:  # it counts beside memory: none is what the kernel can still be asked for
        left_out["swap_bytes"] = 0
    return CgroupLimits(**{**{name: getattr(limits, name) for name in limits.__dataclass_fields__}, **left_out})


def limits_to_json(limits: CgroupLimits) -> dict[str, Any]:
    return asdict(limits)


def limits_from_json(data: dict[str, Any]) -> CgroupLimits:
    io = data.get("io")
    return CgroupLimits(**{**data, "io": None if io is None else IoLimits(**io)})


def limit_words(manifest: JobManifest) -> dict[str, str]:
    """The limits as the messages about an end quote them."""
    spec = manifest.spec
    times = [seconds for seconds in (spec.timeout_seconds, spec.attempt_timeout_seconds) if seconds is not None]
    return {
        "memory": readable_size(spec.limits.memory_bytes),
        "timeout": f"{min(times):g}s" if times else "",
        "grace": f"{spec.stop.grace_seconds:g}s",
    }


def launch_spec(
    request: AttemptRequest,
    *,
    attempt_dir: str,
    log_path: str,
    id_base: int,
    id_count: int,
    workspace: dict[str, Any],
    rootfs: str,
    root_bytes: int,
    stop_signal: int,
    cgroup: CgroupPlan,
    content_path: Callable[[str], str],
) -> dict[str, Any]:
    """The launch spec, version 1.

    rootfs: ``host`` or a directory. root_bytes: what the job may write to it. content_path: where an uploaded content
    lies.
    """
    spec = request.manifest.spec
    name = request.manifest.metadata.name
    timeouts = [seconds for seconds in (spec.attempt_timeout_seconds, request.deadline_seconds) if seconds is not None]
    return {
        "version": VERSION,
        "attempt": request.attempt_id,
        "attempt_dir": attempt_dir,
        "log_path": log_path,
        "log_bytes": spec.limits.logs_bytes,
        "argv": argv_of(request.manifest),
        "script": spec.script,
        "env": environment(request),
        "workdir": spec.workdir,
        "hostname": spec.isolation.hostname or name,
        "uid": spec.isolation.user,
        "gid": group_of(spec.isolation),
        "id_base": id_base,
        "id_count": id_count,
        "network": "host" if spec.isolation.network == Network.HOST else "none",
        "rootfs": rootfs,
        "root_bytes": root_bytes,
        "etc": etc_files(spec.isolation, spec.isolation.hostname or name),
        "workspace": workspace,
        "files": [launch_file(file, content_path) for file in spec.files],
        "outputs": list(spec.outputs),
        "secrets": list(request.secrets.files.items()),
        **redaction(request.secrets),
        "tmp_bytes": min(TMP_BYTES, (spec.limits.memory_bytes or 2 * TMP_BYTES) // 2),
        "capabilities": list(spec.isolation.capabilities),
        "seccomp": seccomp_of(spec.isolation),
        "rlimits": RLIMITS,
        "stop_signal": int(stop_signal),
        "grace_seconds": spec.stop.grace_seconds,
        "timeout_seconds": min(timeouts) if timeouts else None,
        "cgroup": dict(cgroup),
    }


def redaction(secrets: GivenSecrets) -> dict[str, list[bytes]]:
    """What the init must not keep of the job's output; nothing for most jobs."""
    pieces = pieces_of((*secrets.files.values(), *secrets.env.values()))
    return {"redacted": pieces} if pieces else {}


def launch_file(file: FileSpec, content_path: Callable[[str], str]) -> dict[str, Any]:
    """One file of the workspace: its text, where its content lies on the host, or where it links to."""
    if file.link is not None:
        return {"path": file.path, "link": file.link}
    if file.sha256 is not None:
        return {"path": file.path, "mode": file.mode, "host_path": content_path(file.sha256), "size": file.size}
    return {"path": file.path, "mode": file.mode, "content": file.content or ""}


def argv_of(manifest: JobManifest) -> list[str]:
    """The argv; a script is run by the interpreter it names, or by ``sh -eu``."""
    spec = manifest.spec
    if spec.script is None:
        return list(spec.command or ())
    return [SCRIPT] if spec.script.startswith("#!") else ["/bin/sh", "-eu", SCRIPT]


def environment(request: AttemptRequest) -> dict[str, str]:
    """Built from nothing; the manifest's own variables win."""
    user = user_name(request.manifest.spec.isolation.user)
    return {
        "PATH": PATH,
        "HOME": "/work",
        "USER": user,
        "LOGNAME": user,
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
        "JOBLET_JOB": request.manifest.metadata.name,
        "JOBLET_RUN": request.run_id,
        "JOBLET_ATTEMPT": str(request.number),
        **({} if request.tick_seconds is None else {"JOBLET_SCHEDULED": format_moment(request.tick_seconds)}),
        **({} if request.trace is None else as_variables(request.trace)),
        **({"JOBLET_OUTPUTS": OUTPUTS} if request.manifest.spec.outputs else {}),
        **request.manifest.spec.env,
        **{name: variable(name, value) for name, value in request.secrets.env.items()},
    }


def variable(name: str, value: bytes) -> str:
    """A secret as execve passes it on, whatever bytes it has but NUL. Raises NotAVariable."""
    if b"\0" in value:
        raise NotAVariable(
            "the secret holds a NUL byte, which no variable can hold",
            where=f"spec.secrets: {name}",
            todo="take it as a file: path instead of env",
        )
    return os.fsdecode(value)
