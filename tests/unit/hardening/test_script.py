"""joblet harden --print: a script that shellcheck finds nothing in, and that knows what it may touch."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from joblet.config.server import ServerConfig
from jobletd.hardening.script import CannotHarden, hardening
from tests.integration.joblet_command import joblet

ROOT = Path(__file__).parents[3]


def script(path: str = "/opt/joblet/config/joblet-config.yml", *sources: str, **sections: Any) -> str:
    return hardening(ServerConfig.model_validate({"version": "3.0", **sections}), path, sources)


@pytest.mark.parametrize(
    "text",
    [
        script(),
        script("/opt/joblet/config/joblet-config.yml", "192.0.2.0/24", "2001:db8::/32", server={"address": "0.0.0.0"}),
        script(server={"address": "::"}, logging={"output": "/var/log/joblet/joblet.log"}),
        script("/srv/it's a $(place)/joblet-config.yml", state={"directory": "/srv/it's a $(place)/`state`"}),
    ],
)
def test_shellcheck_finds_nothing(text: str) -> None:
    # SC2016: that a path in single quotes looks as if it were meant to expand; it is not.
    ended = subprocess.run(
        ["shellcheck", "--exclude=SC2016", "-"], input=text, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout


def test_the_port_and_where_clients_come_from_are_those_of_the_configuration() -> None:
    text = script("/x/joblet-config.yml", "192.0.2.7/24", server={"address": "0.0.0.0", "port": 50123})
    assert "ufw allow proto tcp from 192.0.2.0/24 to any port 50123" in text
    assert "port = 50123" in text and "50051" not in text
    assert "from everywhere" not in text.lower()
    assert "ufw allow" not in script(server={"address": "127.0.0.1"}).partition("# --- 3")[2].partition("say 'ufw")[0]


def test_fail2ban_reads_where_the_daemon_writes() -> None:
    to_file = script(logging={"output": "/var/log/joblet/joblet.log"})
    assert "\nlogpath = /var/log/joblet/joblet.log\n" in to_file and "\nbackend = systemd\n" not in to_file
    to_journal = script(logging={"output": "stderr"})
    assert "\nlogpath" not in to_journal and "\nbackend = systemd\n" in to_journal


def test_directories_that_others_use_are_left_alone() -> None:
    text = script("/etc/joblet-config.yml", logs={"directory": "/var/log"}, run={"directory": "/run"})
    steps = text.partition("# --- 1")[2].partition("# --- 2")[0].splitlines()
    words = [word for line in steps if not line.startswith("#") for word in line.split()]
    assert "/etc/joblet-config.yml" in words and not {"/etc", "/var/log", "/run"} & set(words)
    assert "restorecon" in text and "context var_log_t /var/log " not in text


def test_the_files_of_fail2ban_are_the_shipped_ones() -> None:
    for name in ("filter.d/joblet.conf", "jail.d/joblet.conf"):
        assert (ROOT / "systemd/fail2ban" / name).samefile(ROOT / "reconciler/jobletd/hardening/fail2ban" / name)
    assert (ROOT / "systemd/fail2ban/filter.d/joblet.conf").read_text() in script()


def test_what_cannot_be_known_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(CannotHarden, match=r"server\.port"):
        script(server={"port": 0})
    with pytest.raises(CannotHarden, match="control characters"):
        script("/x/a\nreboot\n#/joblet-config.yml")
    with pytest.raises(CannotHarden, match="control characters"):
        script(logging={"output": "/x\nJOBLET_END\nreboot"})
    with pytest.raises(CannotHarden, match="is no network"):
        script("/x/joblet-config.yml", "192.0.2.0/99")
    ended = joblet("harden")
    assert ended.status == 1 and "joblet harden --print" in ended.err
