"""What a reload tells systemd and the log, and that it tells what is about to expire."""

from __future__ import annotations

import datetime
import socket
from pathlib import Path
from typing import Any

import pytest
import structlog

from joblet.clock import SystemClock
from joblet.config import ConfigError
from joblet.config.server import LoadedConfig, ServerConfig, load_server_config
from joblet.pki import Role
from jobletd.certificate_watch import CertificateWatch, expiring
from jobletd.certs.directory import CertificateDirectory
from jobletd.certs.issuing import Order, Revocation, issue, plan_revocation
from jobletd.reloading import HANGUP, Reloader
from jobletd.setup import Setup, make_root

NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture
def config_path(tmp_path: Path) -> str:
    path, *_ = make_root(Setup(f"{tmp_path}/root", (), 0, "/sys/fs/cgroup/x/y"))
    return path


def refused() -> LoadedConfig:
    raise ConfigError("is wrong", where="joblet-config.yml:1:1")


def reloader(config: ServerConfig) -> Reloader:
    parts: Any = None  # a reload that is refused touches none
    return Reloader(config, parts, read=refused, take=lambda _: None, env={})


def test_systemd_is_told_of_the_reload_and_of_its_end(
    config_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_server_config(config_path, {})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"{tmp_path}/notify")
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", f"{tmp_path}/notify")
        reloader(config).hang_up()
        first, number = manager.recv(4096).decode().rsplit("=", 1)
        assert first == "RELOADING=1\nMONOTONIC_USEC" and int(number) > 0
        assert manager.recv(4096) == b"READY=1"


def test_a_refusal_is_one_audit_line_that_says_who_asked_and_what_is_wrong(config_path: str) -> None:
    config = load_server_config(config_path, {})
    with structlog.testing.capture_logs() as log:
        reloader(config).hang_up()
        with pytest.raises(ConfigError):
            reloader(config).reload(HANGUP)
    first, *_ = (line for line in log if line["log_level"] == "error")
    assert first["event"] == "reload refused, the old configuration stays"
    assert (first["client"], first["peer"], first["error"]) == ("root", "SIGHUP", "joblet-config.yml:1:1: is wrong")


def test_what_ends_within_thirty_days_is_warned_about_and_nothing_else(config_path: str) -> None:
    directory = CertificateDirectory(config_path)
    config = load_server_config(config_path, {})
    for name, days in (("soon", 20), ("later", 200), ("revoked", 20), ("renewed", 20), ("renewed", 200)):
        output = f"{directory.path}/{name}{days}.yml"
        issue(directory, config, Order(name, Role.VIEWER, days, output=output), NOW)
    (_, text), _ = plan_revocation(directory, config, Revocation(name="revoked"), NOW)
    Path(config_path).write_bytes(text)
    watch = CertificateWatch(SystemClock(), directory)
    with structlog.testing.capture_logs() as log:
        watch.take(load_server_config(config_path, {}).security)
    assert [line["certificate"] for line in log] == ["client soon (viewer)"]
    assert watch.expires_ns > 0
    late = NOW + datetime.timedelta(days=340)
    assert [what for what, _ in expiring(config.security, late)] == ["the server certificate"]
    late = NOW + datetime.timedelta(days=3640)
    assert [what for what, _ in expiring(config.security, late)] == ["the certificate authority"]
