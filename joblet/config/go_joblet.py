"""Keys of Go Joblet's configuration that mean nothing here: such a file is read, and each of them is named in a warning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from joblet.config.yaml_places import ConfigText

_MANIFEST = "a manifest says what its job needs"
# Sections and keys, and what takes their place. A section stands for all of its keys.
WITHOUT_EFFECT: dict[str, str] = {
    "server.minTlsVersion": "it is security.minTlsVersion",
    "server.nodeId": "a node is known by its host name",
    "filesystem": "a job's root, /work and /tmp are its own",
    "grpc.maxConcurrentStreams": "server.maxConnections bounds connections",
    "grpc.connectionTimeout": "a handshake has 10s",
    "network.state_dir": "it lies in state.directory",
    "network.stateDir": "it lies in state.directory",
    "network.enabled": "a job has a network only if its manifest says so",
    "network.default_network": "a job has none unless its manifest says so",
    "network.defaultNetwork": "a job has none unless its manifest says so",
    "network.networks": "kind: Network declares one; network.pool holds the addresses",
    "network.allow_custom_networks": "who may apply manifests may declare networks",
    "network.allowCustomNetworks": "who may apply manifests may declare networks",
    "network.maxCustomNetworks": "network.pool bounds them",
    "network.storage": "it lies in state.directory",
    "monitoring": "rnx nodes and rnx monitor need no configuration",
    "telemetry": "usage is read from cgroups when it is asked for",
    "buffers": "output goes to files, without buffers in between",
    "volumes": "kind: Volume says a volume's size; they lie in state.directory",
    "runtime": _MANIFEST,
    "gpu": _MANIFEST,
    "ipc": "the daemon keeps state and output itself",
    "persist": "the daemon keeps state and output itself",
    "state.backend": "state is a database in state.directory",
    "state.socket": "state is a database in state.directory",
    "state.buffer_size": "each change is durable when it is acknowledged",
    "state.reconnect_delay": "state is a database in state.directory",
    "state.pool": "state is a database in state.directory",
    "state.client": "state is a database in state.directory",
    "state.local": "it is state.directory",
    "state.storage": "state is a database in state.directory",
}


def without_go_keys(source: ConfigText) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The file's data less the keys that have no effect here, and a warning for each."""
    assert isinstance(source.data, dict)
    data: dict[str, Any] = dict(source.data)
    warnings: list[str] = []
    for dotted, instead in WITHOUT_EFFECT.items():
        section, _, name = dotted.partition(".")
        if section not in data:
            continue
        inside = data[section]
        if not name:
            del data[section]
            warnings += [_warning(source, key, instead) for key in _keys(section, inside)]
        elif isinstance(inside, Mapping) and name in inside:
            data[section] = {key: value for key, value in inside.items() if key != name}
            warnings.append(_warning(source, dotted, instead))
    cgroup = data.get("cgroup")
    controllers = cgroup.get("enableControllers") if isinstance(cgroup, dict) else None
    if isinstance(controllers, list) and "devices" in controllers:
        warnings.append(_warning(source, "cgroup.enableControllers", "devices: a job's /dev has what it may use"))
    return data, tuple(warnings)


def _keys(section: str, inside: object) -> Iterator[str]:
    """All keys of a section, as dotted paths; the section itself if it has none."""
    if isinstance(inside, Mapping) and inside:
        for key in inside:
            yield f"{section}.{key}"
    else:
        yield section


def _warning(source: ConfigText, dotted: str, instead: str) -> str:
    return f"{source.place(dotted.split('.'))}: {dotted}: has no effect here ({instead})"
