"""How git gets at a repository: protocol, credentials, trusted keys. Nothing secret is ever in an argument or on a disk.

Keys are held in memory files that the tools open by their path below our own ``/proc/<pid>/fd``.
"""

from __future__ import annotations

import base64
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from joblet.errors import JobletError

USERNAME, TOKEN, SSH_KEY, KNOWN_HOSTS, CA = "username", "token", "ssh-key", "known-hosts", "ca.crt"
KEYS = (USERNAME, TOKEN, SSH_KEY, KNOWN_HOSTS, CA)
DEFAULT_USERNAME = "git"  # hosters look at the token alone
CONNECT_SECONDS = 15
_SSH_OPTIONS = (
    *("-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"),
    *("-o", "StrictHostKeyChecking=yes", "-o", "UpdateHostKeys=no", "-o", "GlobalKnownHostsFile=none"),
    *("-o", "PreferredAuthentications=publickey", "-o", "ClearAllForwardings=yes", "-o", "ForwardAgent=no"),
    *("-o", "PermitLocalCommand=no", "-o", "ControlPath=none", "-o", f"ConnectTimeout={CONNECT_SECONDS}"),
)


class NoCredentials(JobletError):
    """What is needed to get at the repository is not there."""


@dataclass(frozen=True, slots=True)
class Access:
    """What calls that go to the repository get. protocols: the only ones that are spoken."""

    protocols: str
    config: Mapping[str, str]
    environment: Mapping[str, str]


def scheme_of(url: str) -> str:
    """https, ssh or file; ``user@host:path`` is ssh."""
    scheme, separator, _ = url.partition("://")
    return scheme if separator else "ssh"


@contextmanager
def open_access(url: str, secret: str, values: Mapping[str, bytes]) -> Iterator[Access]:
    """Access for as long as the block lasts. secret: what the values came from, for errors. Raises NoCredentials."""
    scheme = scheme_of(url)
    config: dict[str, str] = {}
    environment: dict[str, str] = {}
    with ExitStack() as stack:
        if scheme == "https":
            if TOKEN in values:
                user = values.get(USERNAME, DEFAULT_USERNAME.encode()).strip()
                basic = base64.b64encode(user + b":" + values[TOKEN].strip()).decode()
                config["http.extraHeader"] = f"Authorization: Basic {basic}"
            if CA in values:
                config["http.sslCAInfo"] = stack.enter_context(memory_file(CA, values[CA]))
        elif scheme == "ssh":
            for key in (SSH_KEY, KNOWN_HOSTS):
                if key not in values:
                    raise NoCredentials(
                        f"has no key {key}" if secret else "needs a key, and nothing names one",
                        where=secret or "spec.credentials",
                        todo=f"a Secret with {SSH_KEY} and {KNOWN_HOSTS} (ssh-keyscan HOST), named in spec.credentials",
                    )
            identity = stack.enter_context(memory_file(SSH_KEY, values[SSH_KEY].rstrip(b"\n") + b"\n"))
            known = stack.enter_context(memory_file(KNOWN_HOSTS, values[KNOWN_HOSTS]))
            options = (*_SSH_OPTIONS, "-o", f"IdentityFile={identity}", "-o", f"UserKnownHostsFile={known}")
            environment |= {"GIT_SSH_COMMAND": shlex.join(("ssh", *options)), "GIT_SSH_VARIANT": "ssh"}
        yield Access(scheme, config, environment)


@contextmanager
def memory_file(name: str, content: bytes) -> Iterator[str]:
    """A file in memory alone. Gives a path by which processes that we start may open it, as long as the block lasts."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        os.fchmod(fd, 0o600)  # ssh refuses a key that others could read
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        yield f"/proc/{os.getpid()}/fd/{fd}"
    finally:
        os.close(fd)
