"""``joblet`` commands in this process: the same code without the start of an interpreter, of which there would be many."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from joblet.errors import JobletError
from jobletd.cli import app
from tests.integration.host import Ended


def joblet(*arguments: str | Path, env: dict[str, str] | None = None) -> Ended:
    """Run one command, and end as ``main`` does."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env=env)
    if isinstance(result.exception, JobletError):
        return Ended(1, result.stdout.encode(), f"joblet: {result.exception}\n".encode())
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ended(result.exit_code, result.stdout.encode(), result.stderr.encode())
