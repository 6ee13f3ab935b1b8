"""``joblet cleanup``: what is left on the host when all else failed, shown or removed. Only while no daemon runs.

Exit status: 0 if nothing is left (or, with a dry run, whatever is found), 1 if something is.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

import typer

from joblet.config.server import load_server_config
from joblet.errors import JobletError
from jobletd.configured import network_settings_of
from jobletd.directory_lock import take_lock
from jobletd.executor.local.cleanup import Cleanup, Thing


class CleanupRefused(JobletError):
    """There is a daemon, whose things these are."""


def clean_up(config_path: str | None, env: Mapping[str, str], *, dry_run: bool) -> int:
    """Returns the exit status. Raises CleanupRefused, ConfigError."""
    config = load_server_config(config_path, env)
    if os.geteuid() != 0:
        raise CleanupRefused("ends processes and removes cgroups", where="joblet cleanup", todo="run it as root")
    os.makedirs(config.run.directory, 0o700, exist_ok=True)
    try:
        lock = take_lock(config.run.directory)
    except BlockingIOError:
        todo = "stop it first: systemctl stop joblet"
        raise CleanupRefused("the daemon runs", where=config.run.directory, todo=todo) from None
    cleanup = Cleanup(
        state=config.state.directory,
        run=config.run.directory,
        cgroup_base=config.cgroup.base_dir,
        networks=network_settings_of(config),
    )
    try:
        return asyncio.run(_show(cleanup) if dry_run else _remove(cleanup))
    finally:
        os.close(lock)


async def _show(cleanup: Cleanup) -> int:
    found = await cleanup.find()
    for thing in found:
        typer.echo(f"would remove {_words(thing)}")
    typer.echo(f"{len(found)} found; nothing was changed" if found else "nothing is left")
    return 0


async def _remove(cleanup: Cleanup) -> int:
    found = await cleanup.find()
    failures = await cleanup.remove()
    left = await cleanup.find()
    for thing in found:
        if thing not in left:
            typer.echo(f"removed {_words(thing)}")
    for thing in left:
        typer.echo(f"still there: {_words(thing)}", err=True)
    for failure in failures:
        typer.echo(f"failed: {failure}", err=True)
    if not left and not failures:
        typer.echo("nothing is left; records of the jobs stay, and the next daemon goes on from them")
    return 1 if left or failures else 0


def _words(thing: Thing) -> str:
    return f"{thing.kind} {thing.name}" + (f" ({thing.detail})" if thing.detail else "")
