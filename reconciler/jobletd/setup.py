"""What ``joblet init`` makes: directories, certificates, configurations. Nothing half done, nothing overwritten."""

from __future__ import annotations

import datetime
import hashlib
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil
import yaml

from joblet.atomicfile import write_atomic
from joblet.errors import JobletError
from joblet.pki import Authority, InvalidName, KeyPair, Role, check_name, is_address
from jobletd.certs.issued import NAME as RECORD
from jobletd.certs.issued import Issued, to_text

CONFIG, ADMIN, VIEWER = "joblet-config.yml", "rnx-config.yml", "rnx-config-viewer.yml"
# (below the root, mode): only root looks into those with keys, state and sockets. A job's own root lies below state.
DIRECTORIES = (
    ("spool", 0o755),
    ("spool/status", 0o755),
    ("state", 0o711),
    ("log", 0o750),
    ("run", 0o700),
    ("seccomp", 0o700),
    ("images", 0o700),  # files in it may belong to any user id, with any bits
)
DEFAULT_ROOT = "/opt/joblet"
DEFAULT_CGROUP_BASE = "/sys/fs/cgroup/joblet.slice/joblet.service"
LOGS = "/var/log/joblet"
LOG_FILES = {"output": f"{LOGS}/joblet.log", "audit": f"{LOGS}/audit.log"}
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104  listened on if names of the outside were given


class SetupError(JobletError):
    """The root directory cannot be made."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What was asked for. addresses: names and addresses by which clients reach the host, beside those found."""

    root: str
    addresses: tuple[str, ...]
    port: int
    cgroup_base: str | None = None


class Block(str):
    """Text that is written as a block, so that certificates stay readable."""


class Dumper(yaml.SafeDumper):
    """Knows Block."""


Dumper.add_representer(
    Block, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|")
)


def make_root(setup: Setup) -> list[str]:
    """Make everything; returns the paths of the files for people. Raises SetupError, InvalidName, and leaves nothing then."""
    root = os.path.abspath(setup.root)
    addresses = tuple(check_name(address) for address in setup.addresses)
    refuse_what_is_there(root)
    try:
        with undone_on_failure() as made:
            make_directory(f"{root}/config", 0o700, made)
            for name, mode in DIRECTORIES:
                make_directory(f"{root}/{name}", mode, made)
            if root == DEFAULT_ROOT and not os.path.isdir(LOGS):
                make_directory(LOGS, 0o750, made)
            write_config(root, files(root, setup, addresses), made)
    except OSError as error:
        raise SetupError(f"cannot be set up: {error.strerror}", where=error.filename or root) from error
    return [f"{root}/config/{name}" for name in (CONFIG, ADMIN, VIEWER)]


def refuse_what_is_there(root: str) -> None:
    """Only empty directories are taken over, and a spool that was filled beforehand."""
    if os.path.exists(f"{root}/config/{CONFIG}"):
        raise SetupError("is set up already", where=root, todo="choose another --root, or remove this one first")
    for name in ("config", "state", "log", "run"):
        path = f"{root}/{name}"
        with suppress(FileNotFoundError, NotADirectoryError):
            if os.listdir(path):
                raise SetupError("is there and not empty", where=path, todo="choose another --root, or remove it first")


@contextmanager
def undone_on_failure() -> Iterator[list[str]]:
    """A list of what was made, in order; removed again if the block fails."""
    made: list[str] = []
    try:
        yield made
    except BaseException:
        for path in reversed(made):
            shutil.rmtree(path, ignore_errors=True)
        raise


def make_directory(path: str, mode: int, made: list[str]) -> None:
    """With those above it. An empty one that is there gets the mode. Raises OSError."""
    if os.path.isdir(path):
        if not os.listdir(path):
            os.chmod(path, mode)
        return
    missing = [path]
    while not os.path.isdir(os.path.dirname(missing[-1])):
        missing.append(os.path.dirname(missing[-1]))
    for one in reversed(missing):
        os.mkdir(one, 0o755)
        made.append(one)
    os.chmod(path, mode)


def write_config(root: str, content: Mapping[str, bytes], made: list[str]) -> None:
    """All files of the configuration directory at once: written beside it, then renamed into its place. Raises OSError."""
    new = f"{root}/.config.new"
    shutil.rmtree(new, ignore_errors=True)  # of an init that was killed
    os.mkdir(new, 0o700)
    made.append(new)
    for name, data in content.items():
        write_atomic(f"{new}/{name}", data)
    os.rename(new, f"{root}/config")


def files(root: str, setup: Setup, addresses: tuple[str, ...]) -> dict[str, bytes]:
    """What stands in the configuration directory, with new keys."""
    now = datetime.datetime.now(datetime.UTC)
    authority = Authority.create(now)
    server = authority.issue_server((*found_names(), *addresses), now)
    ca = authority.pair.certificate
    first = addresses[0] if addresses else "127.0.0.1"
    address = f"[{first}]:{setup.port}" if ":" in first else f"{first}:{setup.port}"
    listen = "127.0.0.1" if not addresses else EVERYWHERE[any(":" in one for one in addresses)]
    issued = [Issued.of(server.certificate)]
    found = {
        "ca.key": authority.pair.key.encode(),
        "ca.crt": ca.encode(),
        CONFIG: dump(server_config(root, setup, listen, server, ca)),
    }
    for role, name in ((Role.ADMIN, ADMIN), (Role.VIEWER, VIEWER)):
        pair = authority.issue_client(str(role), role, now)
        issued.append(Issued.of(pair.certificate))
        found[name] = dump(client_config(address, pair, ca))
    found[RECORD] = to_text(issued).encode()
    return found


def server_config(root: str, setup: Setup, listen: str, server: KeyPair, ca: str) -> dict[str, object]:
    return {
        "version": "3.0",
        "server": {"address": listen, "port": setup.port, "onShutdown": "stop"},
        "joblet": {"maxConcurrentJobs": 0},
        "cgroup": {"baseDir": setup.cgroup_base or cgroup_base_of(root)},
        "logging": {"level": "INFO", "format": "text", **(LOG_FILES if root == DEFAULT_ROOT else {})},
        "spool": {"directory": f"{root}/spool"},
        "state": {"directory": f"{root}/state"},
        "logs": {"directory": f"{root}/log"},
        "run": {"directory": f"{root}/run"},
        "isolation": {
            "allowedCapabilities": [],
            "allowHostNetwork": False,
            "allowUnconfined": False,
            "seccompProfiles": f"{root}/seccomp",
            "rootfsImages": f"{root}/images",
        },
        "security": {"serverCert": Block(server.certificate), "serverKey": Block(server.key), "caCert": Block(ca)},
    }


def cgroup_base_of(root: str) -> str:
    """The packaged place has the well-known base; any other root one of its own, since two daemons can't share one."""
    if root == DEFAULT_ROOT:
        return DEFAULT_CGROUP_BASE
    number = hashlib.sha256(root.encode()).hexdigest()[:8]
    return f"{os.path.dirname(DEFAULT_CGROUP_BASE)}/joblet-{number}.service"


def client_config(address: str, pair: KeyPair, ca: str) -> dict[str, object]:
    node = {"address": address, "cert": Block(pair.certificate), "key": Block(pair.key), "ca": Block(ca)}
    return {"version": "3.0", "nodes": {"default": node}}


def dump(content: dict[str, object]) -> bytes:
    return yaml.dump(content, Dumper=Dumper, sort_keys=False).encode()


def found_names() -> list[str]:
    """The host's own name and addresses, less what no certificate can hold or means another host elsewhere."""
    found = [socket.gethostname()]
    for addresses in psutil.net_if_addrs().values():
        found += [one.address for one in addresses if one.family in (socket.AF_INET, socket.AF_INET6)]
    names: list[str] = []
    for name in found:
        with suppress(InvalidName):
            checked = check_name(name)
            if not (is_address(checked) and checked.startswith(("127.", "fe80:", "169.254."))):
                names.append(checked)
    return list(dict.fromkeys(names))
