"""The daemon's configuration: strict, with places, and never readable by others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from joblet.config import ConfigError
from joblet.config.server import load_server_config

MINIMAL = """\
version: "3.0"
security: {serverCert: c, serverKey: k, caCert: a}
spool: {directory: /x/spool}
state: {directory: /x/state}
logs: {directory: /x/log}
run: {directory: /x/run}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "joblet-config.yml", MINIMAL)


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def refusal(path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        load_server_config(str(write(path, text)), {})
    return str(refused.value).replace(str(path), "FILE")


def test_what_is_left_out_has_defaults(file: Path) -> None:
    config = load_server_config(str(file), {})
    assert (config.server.address, config.server.port, config.server.on_shutdown) == ("127.0.0.1", 50051, "stop")
    assert (config.joblet.max_concurrent_jobs, config.spool.rescan_seconds) == (0, 30.0)
    assert config.cgroup.base_dir == "/sys/fs/cgroup/joblet.slice/joblet.service"


def test_an_unknown_key_is_answered_with_place_and_nearest_key(file: Path) -> None:
    text = MINIMAL + "joblet:\n  maxConcurentJobs: 3\n"
    assert refusal(file, text) == "FILE:8:3: joblet.maxConcurentJobs: unknown key (did you mean maxConcurrentJobs?)"


def test_an_unknown_key_that_is_near_to_none_is_answered_with_those_known(file: Path) -> None:
    assert refusal(file, MINIMAL + "logging: {colour: red}\n") == (
        "FILE:7:11: logging.colour: unknown key (known are level, format, output, audit)"
    )


def test_all_problems_are_told_at_once_each_with_its_place(file: Path) -> None:
    text = MINIMAL.replace("/x/run", "run") + "server:\n  port: 70000\n  prot: 1\n"
    lines = refusal(file, text).splitlines()
    assert [line.split(": ")[0] for line in lines] == ["FILE:8:3", "FILE:9:3", "FILE:6:7"]
    assert "server.port: input should be less than or equal to 65535" in lines[0]
    assert "did you mean port?" in lines[1]
    assert "run.directory: 'run' is not an absolute path" in lines[2]


def test_a_missing_section_is_named(file: Path) -> None:
    said = refusal(file, MINIMAL.replace("security: {serverCert: c, serverKey: k, caCert: a}\n", ""))
    assert said.startswith("FILE:1:1: security.serverCert: is missing (joblet certs init makes certificates")


def test_a_key_that_stands_twice_is_refused(file: Path) -> None:
    assert refusal(file, MINIMAL + "spool: {directory: /y}\n") == "FILE:7:1: the key 'spool' stands here a second time"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1\n", "is not YAML"),
        ("a: b\x00\n", "is not YAML"),
        ("a: 2026-99-99\n", "is not YAML"),
        ("- 1\n", "is not a mapping of keys"),
        ("", "is not a mapping of keys"),
        ("[" * 5000, "is nested more than 64 levels deep"),
        ("[" * 200_000, "is nested more than 64 levels deep"),
    ],
)
def test_what_is_no_mapping_in_yaml_is_refused_in_one_line(file: Path, text: str, said: str) -> None:
    assert said in refusal(file, text)


def test_a_refusal_never_shows_a_key(file: Path) -> None:
    text = MINIMAL.replace("serverKey: k", "serverKey: [SECRET]").replace("caCert: a", "caCert: {SECRET: 1}")
    assert "SECRET" not in refusal(file, text)
    config = load_server_config(str(write(file, MINIMAL.replace("serverKey: k", "serverKey: SECRET"))), {})
    assert "SECRET" not in repr(config)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_can_read_is_refused_with_the_command_that_mends_it(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(ConfigError, match=f"chmod 600 {file}"):
        load_server_config(str(file), {})


def test_the_environment_wins_over_the_file(file: Path) -> None:
    env = {"JOBLET_SERVER_ADDRESS": "::1", "JOBLET_LOG_LEVEL": "debug", "JOBLET_LOG_FORMAT": "json"}
    config = load_server_config(None, {**env, "JOBLET_CONFIG_PATH": str(file)})
    assert (config.server.address, config.logging.level, config.logging.format) == ("::1", "DEBUG", "json")


@pytest.mark.parametrize("name", ["JOBLET_LOG_LEVEL", "JOBLET_LOG_FORMAT"])
def test_a_level_or_format_that_does_not_exist_is_answered_with_its_variable(file: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name}: 'loud' is not a .* that exists \\(use "):
        load_server_config(str(file), {name: "loud"})


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("30s", 30.0), ("1h30m", 5400.0), ("1h", 3600.0)])
def test_durations_have_units(file: Path, text: str, seconds: float) -> None:
    write(file, MINIMAL.replace("/x/spool", f"/x/spool, rescanInterval: {text}"))
    assert load_server_config(str(file), {}).spool.rescan_seconds == seconds


@pytest.mark.parametrize("text", ["30", "s", "-1s", "1.5m", "[]"])
def test_a_duration_without_unit_is_refused(file: Path, text: str) -> None:
    assert "is not a duration" in refusal(file, MINIMAL.replace("/x/spool", f"/x/spool, rescanInterval: {text}"))


def test_a_missing_file_is_answered_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="joblet init"):
        load_server_config(str(tmp_path / "none.yml"), dict(os.environ))


def test_nothing_special_is_allowed_unless_it_stands_in_the_file(file: Path) -> None:
    isolation = load_server_config(str(file), {}).isolation
    assert (isolation.allowed_capabilities, isolation.allow_host_network, isolation.allow_unconfined) == (
        (),
        False,
        False,
    )
    assert (isolation.seccomp_profiles, isolation.rootfs_images) == (None, None)
    assert (isolation.default_disk_bytes, isolation.memory_disk_bytes) == (512 << 20, 64 << 20)


def test_what_is_allowed_is_read(file: Path) -> None:
    text = MINIMAL + (
        "isolation: {allowedCapabilities: [CHOWN], allowHostNetwork: true, rootfsImages: /x/images, defaultDisk: 1Gi}\n"
    )
    isolation = load_server_config(str(write(file, text)), {}).isolation
    assert (isolation.allowed_capabilities, isolation.allow_host_network) == (("CHOWN",), True)
    assert (isolation.rootfs_images, isolation.default_disk_bytes) == ("/x/images", 1 << 30)


@pytest.mark.parametrize(
    ("isolation", "words"),
    [
        ("{allowedCapabilities: [CAP_CHOWN]}", "did you mean CHOWN?"),
        ('{allowHostNetwork: "yes"}', "isolation.allowHostNetwork: input should be a valid boolean"),
        ("{rootfsImages: images}", "'images' is not an absolute path"),
        ("{defaultDisk: 1K}", "is too small (at least 1Mi)"),
        ("{defaultDisk: much}", '"much" is not a size'),
    ],
)
def test_what_may_be_allowed_is_checked(file: Path, isolation: str, words: str) -> None:
    assert words in refusal(file, MINIMAL + f"isolation: {isolation}\n")


def test_uploads_are_bounded_and_the_secret_key_may_lie_elsewhere(file: Path) -> None:
    config = load_server_config(str(file), {})
    assert (config.uploads.max_file_bytes, config.uploads.max_total_bytes) == (1 << 30, 10 << 30)
    assert config.state.key_file is None
    text = MINIMAL.replace("/x/state}", "/x/state, keyFile: /x/key}") + "uploads: {maxFileBytes: 5Mi}\n"
    config = load_server_config(str(write(file, text)), {})
    assert (config.uploads.max_file_bytes, config.state.key_file) == (5 << 20, "/x/key")
    assert "is not a size" in refusal(file, MINIMAL + "uploads: {maxFileBytes: 5MB}\n")


@pytest.mark.parametrize(
    "cgroup",
    [
        "\n " + "- " * 1500 + "x",
        "{a: &a [1], b: &b [*a,*a], " + ", ".join(f"k{n}: &k{n} [*b,*b]" for n in range(9)) + "}",
    ],
    ids=["deep", "aliases"],
)
def test_deep_nesting_and_aliases_are_refused_in_no_time(tmp_path: Path, cgroup: str) -> None:
    path = write(tmp_path / "c.yml", MINIMAL + f"cgroup: {cgroup}\n")
    with pytest.raises(ConfigError, match=r"c\.yml"):
        load_server_config(str(path), {})


def test_aliases_that_would_explode_are_looked_at_once(tmp_path: Path) -> None:
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12))
    path = write(tmp_path / "c.yml", f"l0: &l0 [x]\n{levels}\n")
    with pytest.raises(ConfigError, match="unknown key"):
        load_server_config(str(path), {})
