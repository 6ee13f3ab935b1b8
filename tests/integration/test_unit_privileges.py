"""What the systemd unit leaves the daemon of root's privileges is enough for every kind of sandbox."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.integration.host import job_host
from tests.integration.network_stage import stage

pytestmark = pytest.mark.native_only(reason="the guest's kernel has no nf_tables")
UNIT = Path(__file__).parents[2] / "systemd/joblet.service"
JOBS = """
    {apiVersion: joblet/v1, kind: Volume, metadata: {name: slow}, spec: {size: 4Mi}}
    ---
    {apiVersion: joblet/v1, kind: Job, metadata: {name: whole},
     spec: {script: "set -e; echo new > /slow/file; touch /work/file; chown 7 /work/file; ip route | grep -q default; exit 3",
            limits: {disk: 64Mi, memory: 64Mi, cpu: 100%, pids: 50},
            isolation: {network: bridge, hostname: whole, capabilities: [CHOWN]},
            volumes: [{name: slow, path: /slow}]}}
"""


def test_all_that_jobs_ask_for_is_built_with_the_units_capabilities() -> None:
    kept = re.findall(
        r"CAP_(\w+)", " ".join(re.findall(r"^CapabilityBoundingSet=(.*)$", UNIT.read_text(), re.MULTILINE))
    )
    bounds = ",".join(["-all", *(f"+{name.lower()}" for name in kept)])
    with (
        stage() as place,  # in whose network no other daemon has the addresses of its bridge
        job_host(
            configure=lambda config: config["isolation"].update(allowedCapabilities=["CHOWN"]),
            within=(*place.within, "setpriv", "--no-new-privs", "--bounding-set", bounds, "--"),
        ) as host,
    ):
        host.apply(JOBS)
        ended = host.finished("whole")
        assert ended.exit_code == 3, f"{ended.message}\n{host.log('whole', stream='stderr').decode()}"
        for name in ("whole", "volume/slow"):
            assert host.rnx("delete", name).status == 0
