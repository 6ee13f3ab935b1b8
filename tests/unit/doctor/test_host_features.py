"""The probe of the host, on the real kernel: it answers, it is honest, and it leaves no trace."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from joblet.cgroup import open_hierarchy
from jobletd.feature import Feature
from jobletd.host_features import HostFeatures, Place
from jobletd.host_programs import delegation
from tests.ports import held_port


@pytest.fixture(scope="module")
def host() -> HostFeatures:
    return HostFeatures.probe()


@dataclass(frozen=True)
class Unprivileged:
    """What the probe says to somebody who is not root."""

    can_run_jobs: bool
    missing: list[Feature]


@pytest.fixture(scope="module")
def unprivileged() -> Unprivileged:
    script = """
import dataclasses, json, os
from jobletd.host_features import HostFeatures
os.setgroups([]); os.setgid(65534); os.setuid(65534)
host = HostFeatures.probe()
print(json.dumps([host.can_run_jobs, [dataclasses.asdict(missing) for missing in host.missing]]))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    can_run, missing = json.loads(done.stdout)
    return Unprivileged(can_run, [Feature(**fields) for fields in missing])


def feature(host: HostFeatures, name: str) -> Feature:
    (found,) = [feature for feature in host.features if feature.name == name]
    return found


def test_a_host_that_runs_these_tests_can_run_jobs(host: HostFeatures) -> None:
    assert host.can_run_jobs, [feature for feature in host.missing if feature.required]
    for kind in ("user", "pid", "mount", "network", "ipc", "uts", "cgroup"):
        assert feature(host, f"namespaces.{kind}").available


def test_the_cgroups_are_those_that_the_drivers_use(host: HostFeatures) -> None:
    hierarchy = open_hierarchy()
    assert host.cgroup_mode == hierarchy.mode
    assert host.controllers == hierarchy.controllers
    assert feature(host, "limits.cpus").available == ("cpuset" in hierarchy.controllers)


def test_each_thing_that_is_missing_says_what_that_costs_and_how_to_mend_it(
    host: HostFeatures, unprivileged: Unprivileged
) -> None:
    assert len(unprivileged.missing) >= 3, "a good host misses nothing, so it is asked without root too"
    for found in (*host.missing, *unprivileged.missing):
        assert found.detail, found
        assert found.cost, found
        assert found.mend, found


def test_names_are_unique(host: HostFeatures) -> None:
    names = [feature.name for feature in host.features]
    assert len(names) == len(set(names))


def test_probing_changes_nothing() -> None:
    def state() -> tuple[object, ...]:
        hierarchy = open_hierarchy()  # the default base, which no test uses
        return (
            [base for base in hierarchy.bases if os.path.exists(base)],
            sorted(os.listdir("/sys/module")),
            # Other tests mount below /tmp meanwhile; the probe mounts nothing there.
            [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if " /tmp/" not in line],
            os.uname(),
        )

    before = state()
    HostFeatures.probe()
    assert state() == before


def test_without_root_what_cannot_be_tried_counts_as_missing(unprivileged: Unprivileged) -> None:
    assert not unprivileged.can_run_jobs
    assert {"root", "namespaces.pid", "cgroup"} <= {feature.name for feature in unprivileged.missing}


def test_a_port_in_use_is_missing_and_required() -> None:
    with held_port() as port:
        with socket.create_server(("127.0.0.1", port)):
            found = feature(HostFeatures.probe(Place(port=port)), "port")
        assert (found.available, found.required) == (False, True)
        assert "in use" in found.detail
        assert feature(HostFeatures.probe(Place(port=port)), "port").available


def test_a_port_that_the_running_daemon_uses_is_fine(tmp_path: Path) -> None:
    with socket.socket() as port, socket.socket(socket.AF_UNIX) as daemon:
        port.bind(("127.0.0.1", 0))
        port.listen()
        daemon.bind(str(tmp_path / "joblet.sock"))
        daemon.listen()
        place = Place(port=port.getsockname()[1], socket=str(tmp_path / "joblet.sock"))
        found = feature(HostFeatures.probe(place), "port")
    assert found.available
    assert "the daemon runs" in found.detail


def test_the_disk_is_looked_at_where_the_state_will_be(tmp_path: Path) -> None:
    found = feature(HostFeatures.probe(Place(directory=str(tmp_path / "not/yet"))), "disk")
    assert found.detail.endswith(f"free on {tmp_path}")


GOOD = {"LoadState": "loaded", "Delegate": "yes", "DelegateControllers": "cpu memory pids", "KillMode": "process"}


@pytest.mark.parametrize(
    ("unit", "systemd", "detail"),
    [
        (GOOD, 252, "Delegate=yes: cpu memory pids"),
        (GOOD | {"DelegateSubgroup": "daemon"}, 255, "Delegate=yes: cpu memory pids"),
        (GOOD, 255, "no DelegateSubgroup=daemon"),
        (GOOD | {"Delegate": "no"}, 252, "Delegate=no, not yes"),
        (GOOD | {"KillMode": "mixed"}, 252, "KillMode=mixed, not process"),
        ({"LoadState": "not-found"}, 252, "there is no joblet.service"),
    ],
)
def test_a_unit_that_would_cost_jobs_their_limits_or_their_lives_is_told(
    unit: dict[str, str], systemd: int, detail: str
) -> None:
    found = delegation(unit, systemd)
    assert (found.available, found.detail) == (detail.startswith("Delegate=yes:"), detail)
    assert found.available or (found.cost and found.mend)
