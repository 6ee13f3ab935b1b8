"""``joblet doctor`` on a machine as the deployment guide wants it."""

from __future__ import annotations

import json
from typing import Any

from tests.systemd.installed import PLACES, Installed


def features(machine: Installed) -> tuple[int, dict[str, dict[str, Any]]]:
    ended = machine.joblet("doctor", "--json", check=False)
    return ended.returncode, {feature["name"]: feature for feature in json.loads(ended.stdout)["features"]}


def test_all_that_the_guide_asks_for_is_looked_at_and_found(daemon: Installed) -> None:
    status, found = features(daemon)
    assert status == 0
    for name in (
        "kernel",
        "cgroup",
        "namespaces.user",
        "namespaces.pid",
        "systemd",
        "systemd.delegation",
        "memory",
        "disk",
    ):
        assert found[name]["available"], found[name]
    assert "joblet's: the daemon runs" in found["port"]["detail"]
    assert found["systemd"]["detail"].startswith("systemd 2")


def test_a_unit_that_would_kill_jobs_is_told_with_how_to_mend_it(daemon: Installed) -> None:
    unit = PLACES["joblet.service"]
    text = unit.read_text()
    unit.write_text(text.replace("Delegate=yes", "Delegate=no").replace("KillMode=process", "KillMode=mixed"))
    try:
        daemon.systemctl("daemon-reload")
        status, found = features(daemon)
    finally:
        unit.write_text(text)
        daemon.systemctl("daemon-reload")
    assert status == 0, "jobs still run"
    assert found["systemd.delegation"]["detail"] == "Delegate=no, not yes; KillMode=mixed, not process"
    assert "systemctl edit joblet.service" in found["systemd.delegation"]["mend"]
