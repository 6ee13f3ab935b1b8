"""``rnx get nodes``: the hosts that a daemon's jobs are placed on: its own, and those of a cluster behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rnx import exit_codes
from rnx.failures import NotFound
from rnx.options import Format

if TYPE_CHECKING:
    from joblet.api.v1 import node_pb2
    from rnx.daemon import Daemon

HEADER = ("NAME", "EXECUTOR", "STATE", "PARTITIONS", "CPUS", "LOAD", "MEMORY")
WIDE = (*HEADER, "REASON")


def show_nodes(daemon: Daemon, names: Sequence[str], form: Format) -> int:
    """All nodes, or those that were named. Raises NotFound."""
    from rnx.output.documents import engine_node_data, print_json, print_yaml
    from rnx.output.table import print_table

    node = daemon.node_info(engine_nodes=True)
    found = [own_data(node), *map(engine_node_data, node.engine_nodes)]
    if missing := [name for name in names if name not in [one["name"] for one in found]]:
        raise NotFound(f"no node {missing[0]!r}", todo="rnx get nodes shows all")
    wanted = [one for one in found if not names or one["name"] in names]
    match form:
        case Format.JSON:
            print_json(wanted[0] if len(names) == 1 else wanted)
        case Format.YAML:
            print_yaml(wanted)
        case Format.NAME:
            print("\n".join(f"node/{one['name']}" for one in wanted))
        case Format.TABLE:
            print_table(HEADER, [row(one)[: len(HEADER)] for one in wanted])
        case Format.WIDE:
            print_table(WIDE, [row(one) for one in wanted])
    return exit_codes.OK


def own_data(node: node_pb2.Node) -> dict[str, Any]:
    """The daemon's own host, in the same words."""
    return {
        "name": node.hostname,
        "executor": "local",
        "state": "cordoned" if node.HasField("cordon") else "ready",
        "reason": node.cordon.reason or None,
        "partitions": [],
        "cpus": node.cpus,
        "cpusUsed": None,
        "load": None,
        "memoryBytes": node.memory_bytes,
        "memoryUsedBytes": node.memory_bytes - node.memory_available_bytes,
    }


def row(one: dict[str, Any]) -> list[str]:
    from rnx.output.terminal import printable
    from rnx.output.words import size

    cpus = str(one["cpus"]) if one["cpusUsed"] is None else f"{one['cpusUsed']}/{one['cpus']}"
    load = "" if one["load"] is None else f"{one['load']:.2f}"
    memory = f"{size(one['memoryUsedBytes'])}/{size(one['memoryBytes'])}"
    start = [one["name"], one["executor"], one["state"], ",".join(one["partitions"]), cpus, load, memory]
    return [*start, printable(one["reason"] or "")]
