"""Makes one probe of an attempt of this host, by a process of its own: see ``joblet.sandbox.probe``."""

from __future__ import annotations

import asyncio
import marshal
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import joblet
from joblet.manifest import Probe
from jobletd.executor import AttemptRequest
from jobletd.executor.local.attempt_files import InitState
from jobletd.executor.local.etc_files import group_of
from jobletd.executor.local.launch_spec import RLIMITS, environment
from jobletd.executor.local.seccomp_choice import seccomp_of, shared_profiles

START_SECONDS = 10.0  # what the process itself may take, on a busy host
_CODE = "import sys; sys.path.insert(0, {root!r}); from joblet.sandbox.probe import main; main()"


async def probe_attempt(request: AttemptRequest, probe: Probe, init: InitState, cgroups: Sequence[str]) -> str:
    """Why it is not well; empty if it is. cgroups: files that who writes 0 to joins the command's cgroups by."""
    code = _CODE.format(root=os.path.dirname(os.path.dirname(joblet.__file__)))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-c", code),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={},
        cwd="/",
        start_new_session=True,
    )
    try:
        spec = marshal.dumps(probe_spec(request, probe, init, cgroups))
        async with asyncio.timeout(probe.timeout_seconds + START_SECONDS):
            answer, _ = await process.communicate(spec)
    except TimeoutError:
        return f"could not be asked within {probe.timeout_seconds + START_SECONDS:g} s"
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    text = answer.decode(errors="replace")
    return "" if text == "ok" else text or f"could not be asked: the process ended with status {process.returncode}"


def probe_spec(request: AttemptRequest, probe: Probe, init: InitState, cgroups: Sequence[str]) -> dict[str, Any]:
    """What the process is told; the keys of a command are those of the launch spec."""
    spec: dict[str, Any] = {
        "init_pid": init.pid,
        "init_start": init.start_time,
        "timeout_seconds": probe.timeout_seconds,
    }
    if probe.tcp is not None:
        return {**spec, "type": "tcp", "port": probe.tcp}
    if probe.http is not None:
        return {**spec, "type": "http", "port": probe.http.port, "path": probe.http.path}
    manifest = request.manifest
    isolation = manifest.spec.isolation
    profile = seccomp_of(isolation)
    program = profile["program"] if "program" in profile else shared_profiles()[str(profile["name"])]
    return {
        **spec,
        "type": "command",
        "argv": list(probe.command or ()),
        "env": environment(request),
        "workdir": manifest.spec.workdir,
        "hostname": isolation.hostname or manifest.metadata.name,
        "uid": isolation.user,
        "gid": group_of(isolation),
        "capabilities": list(isolation.capabilities),
        "rlimits": RLIMITS,
        "seccomp": program,
        "cgroups": list(cgroups),
    }
