"""Running git: one hardened environment, bounded in time, in output, and in what it writes.

No configuration of the host or of a user counts, no hook, filter, helper or pager runs, nothing asks for a password, no other
protocol than the one asked for is spoken. There is never a work tree, so no attribute or filter of a repository has a meaning.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from joblet.errors import JobletError

LARGEST_FILE_BYTES = 1 << 30  # of what git may write: the largest pack, so the largest repository, that is fetched
LARGEST_OUTPUT_BYTES = 16 << 20
LOCAL_SECONDS = 60.0
ERROR_LENGTH = 300
_CONFIG = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.askPass": "",
    "core.bare": "true",
    "credential.helper": "",
    "fetch.recurseSubmodules": "false",
    "gc.autoDetach": "false",
    "gpg.x509.program": "/bin/false",
    "http.followRedirects": "false",  # a redirect would carry the token to another host
    "http.sslVerify": "true",
    "maintenance.autoDetach": "false",
    "protocol.version": "2",
    "submodule.recurse": "false",
    "transfer.credentialsInUrl": "die",
}
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_PAGER": "cat",
    "GIT_ADVICE": "0",
}
# git and all that it starts (ssh, a helper that speaks https) live in a pid namespace of their own, which dies with the daemon,
# or when the time is up; and no file that they write gets larger than that.
_BOUNDED = (
    *("setpriv", "--pdeathsig", "KILL", "--", "unshare", "--pid", "--fork", "--kill-child=KILL", "--"),
    *("prlimit", f"--fsize={LARGEST_FILE_BYTES}", "--core=0", "--", "git"),
)
_NOISE = (
    *("hint:", "warning:", "From ", "Please make sure you have", "and the repository exists"),
    "fatal: Could not read from remote repository",
)
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\u00a0-\u2027\u202a-\ud7ff\ue000-\ufeff]+")


class GitError(JobletError):
    """git could not do it. what: its own words, made safe to be shown."""


class GitTooLong(GitError):
    """It was ended because its time was up."""


@dataclass(frozen=True, slots=True)
class Call:
    """What one call of git gets. seconds: then it is ended. config, environment: beside those that always hold.

    stdout: a descriptor that gets the output instead of us.
    """

    directory: str
    seconds: float = LOCAL_SECONDS
    config: Mapping[str, str] | None = None
    environment: Mapping[str, str] | None = None
    protocols: str = "none"
    stdin: bytes = b""
    output_bytes: int = LARGEST_OUTPUT_BYTES
    stdout: int | None = None


async def git(call: Call, *arguments: str) -> bytes:
    """Run git to its end. Returns what it wrote. Raises GitError."""
    status, out, err = await git_status(call, *arguments)
    if status != 0:
        raise GitError(reason_of(err, status))
    return out


async def git_status(call: Call, *arguments: str) -> tuple[int, bytes, bytes]:
    """Run git to its end, whatever its status. Raises GitError if it could not run, took too long or wrote too much."""
    try:
        process = await asyncio.create_subprocess_exec(
            *_BOUNDED,
            f"--git-dir={call.directory}",
            *arguments,
            stdin=asyncio.subprocess.PIPE if call.stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if call.stdout is None else call.stdout,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(call),
            start_new_session=True,
        )
    except OSError as error:
        todo = "apt-get install git, dnf install git; joblet doctor tells more"
        raise GitError(f"cannot be run: {error.strerror}", where=error.filename or "git", todo=todo) from error
    try:
        async with asyncio.timeout(call.seconds):
            out, err, _ = await asyncio.gather(
                _read(process.stdout, call.output_bytes),
                _read(process.stderr, 1 << 20),
                _feed(process.stdin, call.stdin),
            )
            status = await process.wait()
    except TimeoutError:
        raise GitTooLong(f"took longer than {call.seconds:g} s", where=f"git {arguments[0]}") from None
    finally:
        await _end(process)
    return status, out, err


def printable(text: str) -> str:
    """One line without control characters: what a repository says may be anything."""
    return _UNPRINTABLE.sub(" ", text).strip()


def _environment(call: Call) -> dict[str, str]:
    config = {**_CONFIG, **(call.config or {})}
    numbered = {"GIT_CONFIG_COUNT": str(len(config)), "GIT_ALLOW_PROTOCOL": call.protocols}
    for number, (name, value) in enumerate(config.items()):
        numbered |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return {**_ENVIRONMENT, **numbered, **(call.environment or {})}


async def _read(stream: asyncio.StreamReader | None, most: int) -> bytes:
    if stream is None:
        return b""
    parts: list[bytes] = []
    left = most
    while part := await stream.read(1 << 16):
        left -= len(part)
        if left < 0:
            raise GitError(f"answered with more than {most >> 20} MiB")
        parts.append(part)
    return b"".join(parts)


async def _feed(stream: asyncio.StreamWriter | None, data: bytes) -> None:
    if stream is None:
        return
    with suppress(BrokenPipeError, ConnectionResetError):  # its status tells why it did not read on
        stream.write(data)
        await stream.drain()
    stream.close()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Nothing of it is left, nor of what it has started."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def reason_of(stderr: bytes, status: int) -> str:
    """The lines of git's that say why, as one."""
    lines = [printable(line) for line in stderr.decode(errors="replace").splitlines()]
    telling = [line for line in lines if line and not line.startswith(_NOISE)]
    chosen = [line for line in telling if line.startswith(("fatal:", "error:", "remote:"))]
    first = [line for line in telling if line not in chosen][:2]  # ssh's own words come without a prefix
    text = "; ".join(dict.fromkeys([*first, *chosen]))
    if "terminal prompts disabled" in text or "Authentication failed" in text:
        return "the repository asks for credentials and accepts none that it got (spec.credentials)"
    if re.search(r"returned error: 30\d", text):
        return (
            "the server redirects to another place, which is not followed: a token would go there too (change spec.url)"
        )
    if status in (-signal.SIGXFSZ, 128 + signal.SIGXFSZ) or "signal 25" in text or "File too large" in text:
        return f"the repository is larger than {LARGEST_FILE_BYTES >> 30} GiB"
    return text[:ERROR_LENGTH] or f"ended with status {status}"
