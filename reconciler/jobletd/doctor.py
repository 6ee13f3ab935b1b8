"""``joblet doctor``: what this host can do, what is missing, what that costs and how to mend it. Changes nothing.

Exit status: 0 if jobs can run here (some limits or comforts may still be missing: they are listed), 1 if something that every
job needs is missing, or the configuration that was named cannot be used.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from joblet.config import ConfigError
from joblet.config.server import DEFAULT_PATH, load_server_config
from joblet.errors import JobletError
from joblet.manifest import Engine
from joblet.pki import CertificateError, check_certificate
from jobletd.certificate_watch import MEND, expiring
from jobletd.executor.slurm.doctor import slurm_features
from jobletd.feature import Feature
from jobletd.host_features import HostFeatures, Place

OK, REQUIRED_IS_MISSING = 0, 1


class UnknownExecutor(JobletError):
    """There is no such one to look at."""


def run_doctor(*, json_output: bool, config_path: str | None, executor: str = "local") -> int:
    """Print the findings, as a table or as JSON; returns the exit status. config_path: without one, JOBLET_CONFIG_PATH or the
    packaged place is looked at, and none at all is fine. Raises UnknownExecutor, ConfigError if a cluster is to be looked at
    and no configuration names one."""
    if executor not in (Engine.LOCAL, Engine.SLURM):
        raise UnknownExecutor(f"{executor!r} is no executor", where="--executor", todo="use local or slurm")
    place, configuration = look_at_configuration(config_path)
    host = HostFeatures.probe(place)
    cluster = slurm_features(load_server_config(config_path, os.environ)) if executor == Engine.SLURM else ()
    features = (*host.features, configuration, *certificates(config_path), *cluster)
    status = OK if all(feature.available for feature in features if feature.required) else REQUIRED_IS_MISSING
    if json_output:
        print(json.dumps(as_json(host, features, status), indent=2))
    else:
        show(host, features, Console(highlight=False))
    return status


def look_at_configuration(path: str | None) -> tuple[Place, Feature]:
    """Where the daemon would work, and whether its configuration can be used."""
    named = path or os.environ.get("JOBLET_CONFIG_PATH")
    found = named or DEFAULT_PATH
    cost = "the daemon does not start"
    if not named and not os.path.exists(found):
        return Place(), Feature("configuration", False, f"no {found}", False, cost, "joblet init --root /opt/joblet")
    try:
        config = load_server_config(found, os.environ)
    except (ConfigError, OSError) as error:
        mend = getattr(error, "todo", "") or "correct the file"
        what = getattr(error, "what", None)
        detail = f"{getattr(error, 'where', '') or found}: {what}" if what else str(error)
        return Place(), Feature("configuration", False, detail, True, cost, mend)
    place = Place(
        directory=config.state.directory,
        address=config.server.address,
        port=config.server.port,
        socket=config.socket_path,
    )
    return place, Feature("configuration", True, found, True, cost)


def certificates(path: str | None) -> Iterator[Feature]:
    """How long the server's certificate counts; nothing where there is no usable configuration, which is told already."""
    cost = "clients refuse the daemon"
    try:
        security = load_server_config(path, os.environ).security
    except (ConfigError, OSError):
        return
    now = datetime.datetime.now(datetime.UTC)
    try:
        certificate = check_certificate(security.server_cert, security.ca_cert, now, where="security.serverCert")
        soon = [f"{what} expires on {end:%Y-%m-%d}" for what, end in expiring(security, now)]
    except CertificateError as error:
        yield Feature("certificates", False, str(error), True, cost, MEND)
        return
    detail = f"the server's counts until {certificate.not_valid_after_utc:%Y-%m-%d}"
    yield Feature("certificates", not soon, "; ".join(soon) or detail, False, f"from then on {cost}", MEND)


def as_json(host: HostFeatures, features: Sequence[Feature], status: int) -> dict[str, object]:
    """What ``--json`` prints; sizes in bytes. ok: the exit status is 0."""
    return {
        "ok": status == OK,
        "kernel": host.kernel,
        "architecture": host.architecture,
        "cgroup_mode": host.cgroup_mode,
        "controllers": sorted(host.controllers),
        "cpus": host.cpus,
        "memory_bytes": host.memory_bytes,
        "swap_bytes": host.swap_bytes,
        "features": [asdict(feature) for feature in features],
    }


def show(host: HostFeatures, features: Sequence[Feature], console: Console) -> None:
    """The table, what is missing below it, and a last line that sums up."""
    table = Table(box=None, pad_edge=False)
    for heading in ("FEATURE", "STATE", "FOUND"):
        table.add_column(heading, overflow="fold")
    for feature in features:
        table.add_row(Text(feature.name), _state(feature), Text(feature.detail))
    console.print(table)

    missing = sorted(
        (feature for feature in features if not feature.available), key=lambda feature: not feature.required
    )
    for feature in missing:
        console.print()
        console.print(Text.assemble((feature.name, "bold"), ": ", feature.detail), soft_wrap=True)
        console.print(Text(f"  costs: {feature.cost}"), soft_wrap=True)
        console.print(Text(f"  mend:  {feature.mend}"), soft_wrap=True)
    console.print()
    required = [feature.name for feature in missing if feature.required]
    if required:
        console.print(Text(f"jobs cannot run here: {', '.join(required)} missing", style="red"), soft_wrap=True)
    else:
        rest = f"; {len(missing)} thing(s) missing that jobs can do without" if missing else ""
        console.print(
            Text(f"jobs can run here (cgroup {host.cgroup_mode}, Linux {host.kernel}){rest}", style="green"),
            soft_wrap=True,
        )


def _state(feature: Feature) -> Text:
    if feature.available:
        return Text("ok", style="green")
    return Text("MISSING", style="red") if feature.required else Text("missing", style="yellow")
