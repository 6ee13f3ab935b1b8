"""The part of ``joblet doctor --executor slurm`` for nodes without a shared directory: whether each node's daemon answers us."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from joblet import __version__
from jobletd.executor import EngineNode
from jobletd.executor.slurm.nodes import Answer, NodeAway, NodeDaemons
from jobletd.feature import Feature

SECONDS = 5.0
AT_ONCE = 32
COST = "how jobs end there is not known, nor their output: they count as lost"
# What a refusal says, and what to do about it.
_MENDS = (
    (
        "no certificate",
        "joblet certs issue --role slurm --name HOST on {node}; bring the file here, into slurm.nodeClients",
    ),
    ("needs the role", "joblet certs issue --role slurm --name HOST on {node}"),
    ("has no role", "joblet certs issue --role slurm --name HOST on {node}"),
    ("refused", "systemctl enable --now joblet on {node}; is the port that of slurm.nodeClients or slurm.nodePort?"),
    ("no answer", "start joblet on {node}, and let this host reach its port"),
    ("handshake", "joblet certs verify on {node}; is the address one that its certificate names?"),
    ("verif", "joblet certs renew --address ADDRESS on {node}, so that its certificate names the address"),
    ("older version", "install one release everywhere"),
)
_MEND = "joblet doctor and joblet certs verify on {node} tell more"


def node_daemons(directory: str, port: int, nodes: Sequence[EngineNode]) -> list[Feature]:
    """One for each node, in that order."""
    return asyncio.run(_looks(directory, port, nodes))


async def _looks(directory: str, port: int, nodes: Sequence[EngineNode]) -> list[Feature]:
    daemons = NodeDaemons(directory, port, SECONDS)
    daemons.addresses = {node.name: node.address for node in nodes if node.address}
    room = asyncio.Semaphore(AT_ONCE)

    async def look(name: str) -> Feature:
        async with room:
            try:
                return judge(name, daemons.config_of(name).address, await daemons.attempts(name, [], within=SECONDS))
            except NodeAway as error:
                return Feature(f"daemon of {name}", False, error.what, True, COST, mend_of(name, error.what))

    try:
        return await asyncio.gather(*(look(node.name) for node in nodes))
    finally:
        await daemons.close()


def judge(node: str, address: str, answer: Answer) -> Feature:
    name = f"daemon of {node}"
    if answer.version != __version__:
        detail = f"{address}: joblet {answer.version or 'of an older version'}, here {__version__}"
        return Feature(
            name, False, detail, False, "it may not tell all that is asked", "install one release everywhere"
        )
    return Feature(name, True, f"{address} answers, joblet {answer.version}")


def mend_of(node: str, what: str) -> str:
    found = next((mend for words, mend in _MENDS if words in what), _MEND)
    return found.format(node=node)
