"""The client's configuration, ``rnx-config.yml`` version "3.0": nodes with address and embedded certificates.

Checked by hand: pydantic would cost each ``rnx`` call more than the check is worth.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from joblet.config.errors import ConfigError
from joblet.config.private_file import read_private

NAME = "rnx-config.yml"
DEFAULT_NODE = "default"
_NODE_KEYS = ("address", "cert", "key", "ca")


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """How to reach one daemon. address: ``host:port``, or ``unix:/path`` without certificates for root on the host itself."""

    name: str
    address: str
    cert: str = ""
    key: str = field(default="", repr=False)
    ca: str = ""


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """All nodes of one file. selected: the one that RNX_NODE names, or ``default``."""

    path: str
    nodes: Mapping[str, NodeConfig]
    selected: str = DEFAULT_NODE

    def node(self, name: str | None = None) -> NodeConfig:
        """The node of that name, else the selected one. Raises ConfigError."""
        wanted = name or self.selected
        if wanted not in self.nodes:
            near = difflib.get_close_matches(wanted, self.nodes, n=1)
            todo = f"did you mean {near[0]}?" if near else f"it has {', '.join(self.nodes) or 'none'}"
            raise ConfigError(f"has no node {wanted!r}", where=self.path, todo=todo)
        return self.nodes[wanted]


def search_path(env: Mapping[str, str]) -> tuple[str, ...]:
    """Where a configuration is looked for, in this order."""
    home = env.get("HOME", "/root")
    directories = (".", "config", f"{home}/.rnx", "/etc/joblet", "/opt/joblet/config")
    return tuple(os.path.join(directory, NAME) for directory in directories)


def find_client_config(explicit: str | None, env: Mapping[str, str]) -> str:
    """The file to use: ``--config``, else RNX_CONFIG, else the first that exists. Raises ConfigError."""
    if path := explicit or env.get("RNX_CONFIG"):
        if not os.path.exists(path):
            raise ConfigError("there is no such file", where=path, todo="give another --config or RNX_CONFIG")
        return path
    for path in search_path(env):
        if os.path.exists(path):
            return path
    raise ConfigError(
        "no client configuration was found",
        where=", ".join(search_path(env)),
        todo="joblet init makes one on the host; copy it to ~/.rnx/ or give --config",
    )


def load_client_config(explicit: str | None, env: Mapping[str, str]) -> ClientConfig:
    """Find and read the client's configuration. Raises ConfigError."""
    import yaml

    path = find_client_config(explicit, env)
    try:
        data = yaml.load(read_private(path), Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else path
        raise ConfigError(f"is not YAML: {error.problem}", where=where) from error
    top = _mapping(data, path, "", ("version", "nodes"))
    if top.get("version") != "3.0":
        raise ConfigError(f"version: {top.get('version')!r} is not known", where=path, todo='it must be "3.0"')
    nodes = top.get("nodes")
    if not isinstance(nodes, dict) or not nodes:
        raise ConfigError("nodes: names no node", where=path)
    return ClientConfig(
        path,
        {str(name): _node(str(name), node, path) for name, node in nodes.items()},
        env.get("RNX_NODE") or DEFAULT_NODE,
    )


def _node(name: str, data: object, path: str) -> NodeConfig:
    node = _mapping(data, path, f"nodes.{name}", _NODE_KEYS)
    for key in _NODE_KEYS:
        if not isinstance(node.get(key, ""), str):
            raise ConfigError(f"nodes.{name}.{key}: must be text", where=path)
    address = str(node.get("address", ""))
    if not address:
        raise ConfigError(f"nodes.{name}.address: is missing", where=path, todo="give host:port")
    if not address.startswith("unix:"):
        if missing := [key for key in ("cert", "key", "ca") if not node.get(key)]:
            raise ConfigError(f"nodes.{name}.{missing[0]}: is missing", where=path, todo="embed the PEM text")
        if ":" not in address:
            raise ConfigError(f"nodes.{name}.address: {address!r} has no port", where=path, todo="give host:port")
    return NodeConfig(name, address, *(str(node.get(key, "")) for key in ("cert", "key", "ca")))


def _mapping(data: object, path: str, place: str, allowed: tuple[str, ...]) -> dict[str, object]:
    prefix = f"{place}: " if place else ""
    if not isinstance(data, dict):
        raise ConfigError(f"{prefix}is not a mapping of keys", where=path)
    for key in data:
        if key not in allowed:
            near = difflib.get_close_matches(str(key), allowed, n=1)
            todo = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(allowed)}"
            raise ConfigError(f"{prefix}unknown key {key!r}", where=path, todo=todo)
    return data
