"""The client's configuration, ``rnx-config.yml`` version "3.0": nodes with address and embedded certificates.

Checked by hand: pydantic would cost each ``rnx`` call more than the check is worth.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from joblet.config.errors import ConfigError
from joblet.config.private_file import read_private

if TYPE_CHECKING:
    from joblet.config.yaml_places import ConfigText

NAME = "rnx-config.yml"
VERSION = "3.0"
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
    from joblet.config.yaml_places import ConfigText

    path = find_client_config(explicit, env)
    source = ConfigText(read_private(path), path=path)
    top = _mapping(source, source.data, (), ("version", "nodes"))
    if top.get("version") != VERSION:
        source.fail(("version",), f"{top.get('version')!r} is not known", todo=f'it must be "{VERSION}", in quotes')
    nodes = top.get("nodes")
    if not isinstance(nodes, dict) or not nodes:
        source.fail(("nodes",), "names no node")
    return ClientConfig(
        path,
        {str(name): _node(source, str(name), node) for name, node in nodes.items()},
        env.get("RNX_NODE") or DEFAULT_NODE,
    )


def _node(source: ConfigText, name: str, data: object) -> NodeConfig:
    place = ("nodes", name)
    node = _mapping(source, data, place, _NODE_KEYS)
    for key in _NODE_KEYS:
        if not isinstance(node.get(key, ""), str):
            source.fail((*place, key), "must be text")
    address = str(node.get("address", ""))
    if not address:
        source.fail((*place, "address"), "is missing", todo="give host:port")
    if not address.startswith("unix:"):
        if missing := [key for key in ("cert", "key", "ca") if not node.get(key)]:
            source.fail((*place, missing[0]), "is missing", todo="embed the PEM text that joblet init wrote")
        if not address.rpartition(":")[2].isdecimal():
            source.fail((*place, "address"), f"{address!r} has no port", todo="give host:port")
    return NodeConfig(name, address, *(str(node.get(key, "")) for key in ("cert", "key", "ca")))


def _mapping(source: ConfigText, data: object, place: tuple[str, ...], known: tuple[str, ...]) -> dict[str, object]:
    if not isinstance(data, dict):
        source.fail(place, "is not a mapping of keys")
    for key in data:
        if key not in known:
            from joblet.config.yaml_places import advice

            source.fail((*place, str(key)), "unknown key", todo=advice(str(key), known))
    return data
