"""The shipped files themselves, as systemd's own tools see them."""

from __future__ import annotations

import re

from tests.systemd.installed import PLACES, SHIPPED, Installed, run

# What systemd-analyze security complains of: as low as what the daemon does allows, and each item explained in the unit.
EXPOSURE = 8.7


def test_the_units_are_clean_to_systemd_analyze(machine: Installed) -> None:
    for name in ("joblet.service", "joblet.slice"):
        ended = run("systemd-analyze", "verify", "--man=no", PLACES[name])
        assert (ended.stdout, ended.stderr) == ("", ""), name


def test_each_remaining_exposure_is_explained_in_the_unit(daemon: Installed) -> None:
    listing = run("systemd-analyze", "security", "--no-pager", "joblet.service").stdout
    exposed = re.findall(r"^✗ (\S+?)=", listing, re.MULTILINE)
    capabilities = set(re.findall(r"^✗ CapabilityBoundingSet=~(\S+)", listing, re.MULTILINE))
    text = (SHIPPED / "joblet.service").read_text()
    comments = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    missing = {name for name in exposed if name.partition("/")[0] not in comments}
    assert missing <= {"CapabilityBoundingSet"}, missing
    assert capabilities and "CapabilityBoundingSet" in text
    overall = re.search(r"Overall exposure level for joblet.service: ([0-9.]+)", listing)
    assert overall and float(overall[1]) <= EXPOSURE


def test_users_and_directories_are_what_the_files_say(machine: Installed) -> None:
    assert run("getent", "passwd", "joblet").stdout.split(":")[5] == "/opt/joblet"
    found = run("stat", "-c", "%n %A %U:%G", "/var/log/joblet", "/opt/joblet/config", "/opt/joblet/run").stdout
    assert found.splitlines() == [
        "/var/log/joblet drwxr-s--- root:joblet",
        "/opt/joblet/config drwx------ root:root",
        "/opt/joblet/run drwx------ root:root",
    ]


def test_what_must_not_outlive_a_boot_is_removed_by_one(machine: Installed) -> None:
    machine.systemctl("stop", "joblet.service")
    left = machine.root / "run/of-an-earlier-boot"
    left.touch()
    run("systemd-tmpfiles", "--create", "--remove", PLACES["joblet.tmpfiles"])
    assert left.exists(), "an upgrade removed it"
    run("systemd-tmpfiles", "--create", "--remove", "--boot", PLACES["joblet.tmpfiles"])
    assert not left.exists()
