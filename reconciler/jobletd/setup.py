"""What ``joblet init`` makes: directories, certificates, configurations. Nothing half done, nothing overwritten."""

from __future__ import annotations

import datetime
import os
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from joblet.atomicfile import write_atomic
from joblet.errors import JobletError
from joblet.pki import Authority, KeyPair, Role

# (below the root, mode): only root looks into those with keys, state and sockets.
DIRECTORIES = (
    ("config", 0o700),
    ("spool", 0o755),
    ("spool/status", 0o755),
    ("state", 0o711),
    ("log", 0o750),
    ("run", 0o700),
)


class SetupError(JobletError):
    """The root directory cannot be made."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What was asked for. addresses: names and addresses by which clients reach the host, beside those found."""

    root: str
    addresses: tuple[str, ...]
    port: int
    cgroup_base: str


class Literal(str):
    """Text that is written as a block, so that certificates stay readable."""


def _represent_literal(dumper: yaml.SafeDumper, text: Literal) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style="|")


yaml.SafeDumper.add_representer(Literal, _represent_literal)


def make_root(setup: Setup) -> list[str]:
    """Make everything; returns the paths of the files for people. Raises SetupError."""
    root = os.path.abspath(setup.root)
    if os.path.exists(f"{root}/config/joblet-config.yml"):
        raise SetupError("is set up already", where=root, todo="choose another directory, or remove this one first")
    existed = os.path.isdir(root)
    try:
        return _make(root, setup)
    except OSError as error:
        if not existed:
            shutil.rmtree(root, ignore_errors=True)
        raise SetupError(f"cannot be set up: {error.strerror}", where=error.filename or root) from error


def _make(root: str, setup: Setup) -> list[str]:
    for name, mode in DIRECTORIES:
        path = f"{root}/{name}"
        os.makedirs(path, mode, exist_ok=True)
        os.chmod(path, mode)
    now = datetime.datetime.now(datetime.UTC)
    authority = Authority.create(now)
    server = authority.issue_server((*found_names(), *setup.addresses), now)
    config = f"{root}/config"
    write_atomic(f"{config}/ca.key", authority.pair.key.encode())
    write_atomic(f"{config}/ca.crt", authority.pair.certificate.encode())
    address = setup.addresses[0] if setup.addresses else "127.0.0.1"
    for role, name in ((Role.ADMIN, "rnx-config.yml"), (Role.VIEWER, "rnx-config-viewer.yml")):
        pair = authority.issue_client(str(role), role, now)
        content = client_config(f"{address}:{setup.port}", pair, authority.pair.certificate)
        write_atomic(f"{config}/{name}", dump(content))
    # Last: where it is, the rest is.
    write_atomic(f"{config}/joblet-config.yml", dump(server_config(root, setup, server, authority.pair.certificate)))
    return [f"{config}/{name}" for name in ("joblet-config.yml", "rnx-config.yml", "rnx-config-viewer.yml")]


def server_config(root: str, setup: Setup, server: KeyPair, ca: str) -> dict[str, object]:
    listen = "0.0.0.0" if setup.addresses else "127.0.0.1"  # noqa: S104  names of the outside were given
    return {
        "version": "3.0",
        "server": {"address": listen, "port": setup.port},
        "joblet": {"maxConcurrentJobs": 0},
        "cgroup": {"baseDir": setup.cgroup_base},
        "logging": {"level": "INFO", "format": "text"},
        "spool": {"directory": f"{root}/spool"},
        "state": {"directory": f"{root}/state"},
        "logs": {"directory": f"{root}/log"},
        "run": {"directory": f"{root}/run"},
        "security": {
            "serverCert": Literal(server.certificate),
            "serverKey": Literal(server.key),
            "caCert": Literal(ca),
        },
    }


def client_config(address: str, pair: KeyPair, ca: str) -> dict[str, object]:
    node = {"address": address, "cert": Literal(pair.certificate), "key": Literal(pair.key), "ca": Literal(ca)}
    return {"version": "3.0", "nodes": {"default": node}}


def dump(content: dict[str, object]) -> bytes:
    return yaml.safe_dump(content, sort_keys=False).encode()


def found_names() -> Sequence[str]:
    """The host's own name, if it is one that a certificate can hold."""
    name = socket.gethostname()
    return [name] if name and name.isascii() and len(name) < 64 and "_" not in name else []
