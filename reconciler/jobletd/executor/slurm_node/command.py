"""The command line's part of ``joblet sandbox-exec``."""

from __future__ import annotations

import asyncio
import os
import sys
import syslog
import time
from collections.abc import Mapping

from joblet.config.server import load_server_config
from joblet.errors import JobletError
from jobletd.executor.slurm_node.directories import NodeDirectories
from jobletd.executor.slurm_node.request import MOST_BYTES, Allocation, RequestError, decode
from jobletd.executor.slurm_node.running import COULD_NOT_START, SandboxExec
from jobletd.executor.slurm_node.sweeping import sweep


def sandbox_exec(config_path: str | None, request_path: str | None, env: Mapping[str, str]) -> int:
    """Run what is asked for on standard input, or in a file. Returns the status to exit with; says why it is 70."""
    try:
        allocation = Allocation.of_environment(env)
        config = load_server_config(config_path, env)
        request = decode(_read(request_path), time.time())
        os.umask(0o022)  # not that of whoever submitted it
        os.chdir("/")
        return asyncio.run(SandboxExec(request, allocation, config).run())
    except (JobletError, OSError) as error:
        print(f"joblet: {error}", file=sys.stderr)
        syslog.syslog(syslog.LOG_ERR, f"joblet sandbox-exec: {error}")  # Slurm may have been told to drop what it says
        return COULD_NOT_START


def sweep_node(config_path: str | None, env: Mapping[str, str]) -> int:
    """Clear away after jobs that Slurm killed. Returns 1 if something is left."""
    directories = NodeDirectories.of(load_server_config(config_path, env))
    directories.make()
    failures = sweep(directories)
    for failure in failures:
        print(f"joblet: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _read(path: str | None) -> bytes:
    if path is None:
        data = sys.stdin.buffer.read(MOST_BYTES + 1)
    else:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise RequestError(f"is larger than {MOST_BYTES} bytes", where="the request", todo="upload large files")
    return data
