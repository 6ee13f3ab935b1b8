"""``joblet init``: all or nothing, and nothing that is there is lost."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from joblet.config import load_client_config
from joblet.config.server import load_server_config
from joblet.errors import JobletError
from joblet.pki import InvalidName, Role, load_certificate, role_of
from jobletd import setup
from jobletd.cli import app
from jobletd.setup import Setup, SetupError, make_root

BASE = "/sys/fs/cgroup/x.slice/x.service"


def asked(root: Path, *addresses: str) -> Setup:
    return Setup(str(root), addresses, 50051, BASE)


def tree(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*")}


def test_everything_is_made_with_the_modes_that_keep_keys_private(tmp_path: Path) -> None:
    make_root(asked(tmp_path / "a/b"))
    assert tree(tmp_path / "a/b") == {
        "config": 0o700,
        "config/ca.crt": 0o600,
        "config/ca.key": 0o600,
        "config/issued.jsonl": 0o600,
        "config/joblet-config.yml": 0o600,
        "config/rnx-config.yml": 0o600,
        "config/rnx-config-viewer.yml": 0o600,
        "spool": 0o755,
        "spool/status": 0o755,
        "state": 0o711,
        "log": 0o750,
        "run": 0o700,
        "seccomp": 0o700,
        "images": 0o700,
    }


def test_what_is_written_can_be_read_back(tmp_path: Path) -> None:
    server, *clients = make_root(asked(tmp_path, "jobs.example.org", "192.0.2.1"))
    config = load_server_config(server, {})
    assert (config.server.address, config.server.port, config.cgroup.base_dir) == ("0.0.0.0", 50051, BASE)
    assert config.run.directory == f"{tmp_path}/run"
    for path, role in zip(clients, (Role.ADMIN, Role.VIEWER), strict=True):
        node = load_client_config(path, {}).node()
        assert node.address == "jobs.example.org:50051"
        assert role_of(load_certificate(node.cert)) is role


@pytest.mark.parametrize(
    ("addresses", "listens", "reached"),
    [((), "127.0.0.1", "127.0.0.1:50051"), (("2001:db8::1",), "::", "[2001:db8::1]:50051")],
)
def test_the_daemon_listens_where_it_was_said_to_be_reached(
    tmp_path: Path, addresses: tuple[str, ...], listens: str, reached: str
) -> None:
    server, admin, _ = make_root(asked(tmp_path, *addresses))
    assert load_server_config(server, {}).server.address == listens
    assert load_client_config(admin, {}).node().address == reached


def test_a_second_init_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    server, *_ = make_root(asked(tmp_path))
    before = Path(server).read_bytes()
    with pytest.raises(SetupError, match="is set up already"):
        make_root(asked(tmp_path))
    assert Path(server).read_bytes() == before


@pytest.mark.parametrize("name", ["config", "state", "log", "run"])
def test_directories_of_others_are_left_as_they_are(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir(mode=0o755)
    (tmp_path / name / "file").touch(0o644)
    before = tree(tmp_path)
    with pytest.raises(SetupError, match="is there and not empty"):
        make_root(asked(tmp_path))
    assert tree(tmp_path) == before


def test_a_spool_that_was_filled_beforehand_is_kept(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir(mode=0o700)
    (tmp_path / "spool/job.yml").write_text("x")
    make_root(asked(tmp_path))
    assert (tmp_path / "spool/job.yml").read_text() == "x"
    assert stat.S_IMODE((tmp_path / "spool").stat().st_mode) == 0o700


def test_an_init_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr(setup, "write_config", full)
    with pytest.raises(SetupError, match="somewhere: cannot be set up: No space left on device"):
        make_root(asked(tmp_path / "new/root"))
    assert tree(tmp_path) == {}


def test_an_address_that_is_none_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(InvalidName):
        make_root(asked(tmp_path / "root", "jobs:50051"))
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["init"],
        ["serve"],
        ["doctor"],
        ["reload"],
        ["config"],
        ["config", "check"],
        ["config", "show"],
        ["config", "schema"],
        ["certs"],
        *(["certs", name] for name in ("init", "show", "verify", "renew", "rotate", "issue", "revoke")),
    ],
)
def test_every_command_has_help_and_each_an_example(command: list[str]) -> None:
    shown = CliRunner().invoke(app, [*command, "--help"])
    assert shown.exit_code == 0
    assert command in ([], ["config"], ["certs"]) or "Example: joblet " in shown.output


def test_init_says_what_comes_next(tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["init", "--root", str(tmp_path / "a root")])
    assert shown.exit_code == 0
    assert f"joblet serve --config '{tmp_path}/a root/config/joblet-config.yml'" in shown.output
    again = CliRunner().invoke(app, ["init", "--root", str(tmp_path / "a root")])
    assert isinstance(again.exception, JobletError)
