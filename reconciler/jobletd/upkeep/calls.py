"""What a job may ask for, word by word, and how the daemon does it: by a command of ``joblet`` as an administrator would run it.

Nothing of what a job says reaches that command but a number and two flags from a table.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from joblet.config.server import ServerConfig
from joblet.errors import JobletError
from joblet.manifest import Upkeep
from jobletd.backup.keeper import backup_directory

MOST_KEPT = 1000
OUTPUT_BYTES = 1 << 20  # of an answer
CALL_SECONDS = 3600.0
AGAIN, NOT_ALLOWED = 75, 77  # EX_TEMPFAIL, EX_NOPERM
FLAGS = {Upkeep.BACKUP: ("--no-uploads",), Upkeep.ROTATE: (), Upkeep.REPORT: ("--json",)}
audit = structlog.get_logger("audit")


class Refused(JobletError):
    """The job may not ask for that, or it is nothing that could be asked for."""


@dataclass(frozen=True, slots=True)
class Asker:
    """An attempt that may ask. calls: for what, by its manifest."""

    job: str
    run_id: str
    attempt_id: str
    calls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a job is told. status: the exit status for it."""

    status: int
    output: str


def words_of(line: bytes) -> list[str]:
    """What a job has sent. Raises Refused."""
    try:
        words = json.loads(line)
    except (ValueError, RecursionError):
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise Refused("the request is no list of words in JSON")
    return words


def arguments_of(words: Sequence[str], asker: Asker, allowed: frozenset[str], config: ServerConfig) -> list[str]:
    """The arguments of ``joblet``, without the configuration. allowed: by the configuration as it is now. Raises Refused."""
    call, *options = words or ("",)
    if call not in list(Upkeep):
        raise Refused(f"{call[:40]!r} is nothing that could be asked for", todo=f"ask for {', '.join(Upkeep)}")
    if call not in asker.calls:
        todo = f"add it to spec.isolation.upkeep of {asker.job}"
        raise Refused(f"job {asker.job} may not ask for {call}", where="its manifest", todo=todo)
    if call not in allowed:
        todo = "add it to isolation.allowedUpkeep"
        raise Refused(f"no job may ask for {call}", where="the daemon's configuration", todo=todo)
    keep = _keep_of(options) if call == Upkeep.BACKUP else ""
    flags = options[2:] if keep else options
    if unknown := [flag for flag in flags if flag not in FLAGS[Upkeep(call)]]:
        raise Refused(f"{call} knows no {unknown[0][:40]!r}")
    if call == Upkeep.BACKUP:
        # A directory of the job's own: it can only push out its own backups.
        directory = f"{backup_directory(config)}/{asker.job}"
        return ["backup", "--directory", directory, "--keep", keep or str(config.backup.keep), *flags]
    return ["certs", "rotate"] if call == Upkeep.ROTATE else ["report", *flags]


def _keep_of(options: Sequence[str]) -> str:
    """The number after a leading ``--keep``; empty without. Raises Refused."""
    if options[:1] != ["--keep"]:
        return ""
    number = options[1] if len(options) > 1 else ""
    if not (number.isascii() and number.isdecimal() and len(number) <= 4 and 1 <= int(number) <= MOST_KEPT):
        raise Refused(f"--keep {number[:40]!r} is no number from 1 to {MOST_KEPT}")
    return number


class Calls:
    """Answers what jobs ask for, one after the other: two exchanges of certificates at a time would be one too many.

    config, allowed: as they are now.
    """

    def __init__(
        self, config_path: str, config: Callable[[], ServerConfig], allowed: Callable[[], frozenset[str]]
    ) -> None:
        self._config_path = config_path
        self._config = config
        self._allowed = allowed
        self._one = asyncio.Lock()

    async def answer(self, asker: Asker, line: bytes) -> Answer:
        """Never raises for what a job has said."""
        who = {"client": f"job:{asker.job}", "run": asker.run_id}
        try:
            words = words_of(line)
            arguments = arguments_of(words, asker, self._allowed(), self._config())
        except Refused as error:
            audit.warning("upkeep refused", **who, reason=str(error))
            return Answer(NOT_ALLOWED, f"joblet: {error}\n")
        async with self._one:
            status, output = await self._run(arguments)
        audit.info("upkeep", **who, call=" ".join(words), status=status)
        return Answer(status, output)

    async def _run(self, arguments: Sequence[str]) -> tuple[int, str]:
        """Its exit status and what it said: read whole before the job hears a word, so that no job can hold it up."""
        # With the very libraries of this process: those of a package lie where no other interpreter looks.
        program = f"import sys; sys.path[:] = {sys.path!r}; from jobletd.cli import main; main()"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", program, *arguments, "--config", self._config_path),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ},
        )
        try:
            async with asyncio.timeout(CALL_SECONDS):
                output, _ = await process.communicate()
        except TimeoutError:
            return AGAIN, f"joblet: it took longer than {CALL_SECONDS:g}s\n"
        finally:
            if process.returncode is None:
                process.kill()  # at every point of it old and new fit together: see jobletd.certs.exchange, backup.archive
                await process.wait()
        return process.returncode or 0, output[-OUTPUT_BYTES:].decode(errors="replace")
