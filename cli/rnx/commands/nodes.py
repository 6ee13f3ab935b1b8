"""``rnx nodes`` and ``rnx version``: which daemons there are, and what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from rnx.options import Format, FormatOption, JsonOption, chosen
from rnx.target import Target, connected

if TYPE_CHECKING:
    from joblet.api.v1 import node_pb2
    from joblet.config import NodeConfig

ANSWER_SECONDS = 5.0
HEADER = ("NAME", "ADDRESS", "STATE", "VERSION", "RUNNING", "QUEUED", "ROLE")
WIDE = (
    *HEADER,
    "HOSTNAME",
    "KERNEL",
    "CPUS",
    "MEMORY",
    "CGROUPS",
    "LABELS",
    "CERTIFICATE",
    "CLIENT CERTIFICATE",
)  # until when: the daemon's, ours
SOON_DAYS = 30


@connected
def nodes(target: Target, output: FormatOption = Format.TABLE, json: JsonOption = False) -> int:
    """Show the configured nodes and their state.

    Exit code 0: all answer; 4: one does not.

    \b
    Example:
      rnx nodes -o wide
    """
    from concurrent.futures import ThreadPoolExecutor

    from rnx import exit_codes
    from rnx.output.documents import print_json, print_yaml
    from rnx.output.table import print_table

    configured = target.config().nodes
    wanted = {name: node for name, node in configured.items() if target.node_name in (None, name)}
    with ThreadPoolExecutor(max_workers=min(32, len(wanted) or 1)) as pool:
        found = list(pool.map(look, wanted.values()))
    match chosen(output, json):
        case Format.JSON:
            print_json(found)
        case Format.YAML:
            print_yaml(found)
        case Format.NAME:
            print("\n".join(str(one["name"]) for one in found))
        case Format.TABLE:
            print_table(HEADER, [row(one)[: len(HEADER)] for one in found])
        case Format.WIDE:
            print_table(WIDE, [row(one) for one in found])
    for one in found:
        warn(one)
    return exit_codes.OK if all(one["node"] for one in found) else exit_codes.UNREACHABLE


def look(config: NodeConfig) -> dict[str, Any]:
    """One node as plain data. node: null if it does not answer, and error tells why."""
    from rnx.daemon import Daemon
    from rnx.failures import ClientError
    from rnx.output.documents import node_data

    result: dict[str, Any] = {
        "name": config.name,
        "address": config.address,
        "role": role(config),
        "certificateExpires": expires(config),
        "node": None,
        "error": None,
    }
    daemon = Daemon(config, answer_seconds=ANSWER_SECONDS)
    try:
        result["node"] = node_data(daemon.node_info())
    except ClientError as error:
        result["error"] = error.what
    finally:
        daemon.close()
    return result


def role(config: NodeConfig) -> str | None:
    """The role that the certificate gives; None if it gives none."""
    from cryptography import x509

    from joblet.pki import role_of

    if not config.cert:
        return None
    try:
        found = role_of(x509.load_pem_x509_certificate(config.cert.encode()))
    except ValueError:
        return None
    return None if found is None else str(found)


def expires(config: NodeConfig) -> str | None:
    """When our certificate for it ends."""
    from joblet.pki import expires as end_of

    try:
        return end_of(config.cert).isoformat() if config.cert else None
    except ValueError:
        return None


def row(one: dict[str, Any]) -> list[str]:
    from rnx.output.words import size

    node = one["node"]
    start = [one["name"], one["address"], state(node) if node else str(one["error"])]
    if node is None:
        return [*start, "", "", "", one["role"] or "", *[""] * 7, (one["certificateExpires"] or "")[:10]]
    counts = [node["version"], str(node["runningJobs"]), str(node["queuedJobs"]), one["role"] or ""]
    host = [node["hostname"], node["kernel"], str(node["cpus"]), size(node["memoryBytes"]), node["cgroupMode"]]
    host.append(",".join(f"{key}={value}" for key, value in sorted(node["labels"].items())))
    ends = [(found["certificateExpires"] or "")[:10] for found in (node, one)]
    return [*start, *counts, *host, *ends]


def warn(one: dict[str, Any]) -> None:
    """On standard error, of certificates that end soon, or have."""
    import sys
    from datetime import UTC, datetime

    node = one["node"] or {}
    for whose, end, todo in (
        ("this client's certificate", one["certificateExpires"], "joblet certs issue"),
        ("the daemon's certificate", node.get("certificateExpires"), "joblet certs renew"),
    ):
        days = (datetime.fromisoformat(end) - datetime.now(UTC)).days if end else SOON_DAYS
        if days < SOON_DAYS:
            when = f"expires in {days} days" if days >= 0 else "has expired"
            print(f"rnx: {one['name']}: {whose} {when}\n  on its host: {todo}", file=sys.stderr)


def state(node: dict[str, Any]) -> str:
    """ready or cordoned, with what is wrong: a pressure that is there, or a good thing that is not; -o json tells why."""
    wrong = [
        one["type"] if one["status"] == "True" else f"not {one['type']}"
        for one in node["conditions"]
        if (one["status"] == "True") == (one["type"].endswith("Pressure") or one["type"] == "PutBack")
    ]
    away = [f"{one['name']} away" for one in node["executors"] if not one["available"]]
    return ", ".join(["cordoned" if node["cordon"] else "ready", *wrong, *away])


@connected
def version(
    target: Target,
    client: Annotated[bool, typer.Option("--client", help="Only the client's; no daemon is asked.")] = False,
    json: JsonOption = False,
) -> None:
    """Show the client's and the daemon's version.

    \b
    Example:
      rnx version
      rnx version --client
    """
    import joblet
    from rnx.output.documents import print_json

    if client:
        print_json({"client": joblet.__version__}) if json else print(f"client: {joblet.__version__}")
        return
    if not json:
        print(f"client: {joblet.__version__}", flush=True)
    node: node_pb2.Node = target.daemon().node_info()
    if json:
        print_json({"client": joblet.__version__, "daemon": node.version, "hostname": node.hostname})
    else:
        print(f"daemon: {node.version} on {node.hostname} ({node.kernel}, {node.architecture})")
