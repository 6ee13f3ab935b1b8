"""``rnx doctor``: from the configuration to the daemon's answer, one finding a line, and what to do about each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from rnx.options import JsonOption
from rnx.target import Target, connected

if TYPE_CHECKING:
    from joblet.config import NodeConfig

GOOD, WARNING, BAD = "ok", "warning", "failed"
SOON_DAYS = 30


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. todo: the next step; empty if there is nothing to do."""

    name: str
    state: str
    detail: str
    todo: str = ""


@connected
def doctor(target: Target, json: JsonOption = False) -> int:
    """Check configuration, certificates and connection.

    Each finding that is not ok comes with what to do. Exit code 0: nothing failed; 1: something did.

    \b
    Example:
      rnx doctor
      rnx doctor --node build2 --json
    """
    from rnx import exit_codes
    from rnx.output.documents import print_json
    from rnx.output.table import print_table

    checks = list(examine(target))
    if json:
        print_json([asdict(check) for check in checks])
    else:
        print_table(("CHECK", "STATE", "FOUND"), [[check.name, check.state, _found(check)] for check in checks])
    return exit_codes.FAILURE if any(check.state == BAD for check in checks) else exit_codes.OK


def _found(check: Check) -> str:
    return f"{check.detail}: {check.todo}" if check.todo else check.detail


def examine(target: Target) -> Iterator[Check]:
    """One check after the other; what depends on one that failed is not looked at."""
    from joblet.errors import JobletError

    try:
        config = target.config()
        node = config.node(target.node_name)
    except JobletError as error:
        yield Check("configuration", BAD, f"{error.where}: {error.what}" if error.where else error.what, error.todo)
        return
    yield Check("configuration", GOOD, f"{config.path}: {len(config.nodes)} node{'s' * (len(config.nodes) > 1)}")
    yield Check("address", GOOD, node.address)
    if node.cert:
        yield certificate(node)
    yield from connection(target, node)


def certificate(node: NodeConfig) -> Check:
    from datetime import UTC, datetime

    from joblet.pki import expires
    from rnx.commands.nodes import role
    from rnx.diagnosis import certificate_problem
    from rnx.diagnosis_words import ISSUE

    if problem := certificate_problem(node):
        return Check("certificate", BAD, problem.what, problem.todo)
    given, end = role(node), expires(node.cert)
    if given is None:
        return Check("certificate", BAD, "it has no role", f"have one with the role admin or viewer issued: {ISSUE}")
    days = (end - datetime.now(UTC)).days
    detail = f"role {given}, valid until {end:%Y-%m-%d}"
    if days < SOON_DAYS:
        return Check("certificate", WARNING, f"{detail}, which is in {days} days", f"have a new one issued: {ISSUE}")
    return Check("certificate", GOOD, detail)


def connection(target: Target, node: NodeConfig) -> Iterator[Check]:
    import time

    import joblet
    from rnx.diagnosis import probe
    from rnx.failures import ClientError

    if finding := probe(node):
        yield Check("connection", BAD, finding.what, finding.todo)
        return
    started = time.monotonic()
    try:
        info = target.daemon().node_info()
    except ClientError as error:
        yield Check("connection", BAD, error.what, error.todo)
        return
    yield Check("connection", GOOD, f"{info.hostname} answered in {(time.monotonic() - started) * 1000:.0f} ms")
    same = info.version == joblet.__version__
    versions = f"client {joblet.__version__}, daemon {info.version}"
    yield Check("versions", GOOD if same else WARNING, versions, "" if same else "install the same on both sides")
    for feature in info.features:
        yield Check(feature.name, GOOD if feature.available else WARNING, feature.detail or "available")
