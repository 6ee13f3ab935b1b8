"""Every key: documented, said when it counts, and seen to reach what it is for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from joblet.cgroup import CgroupLimits, open_hierarchy
from joblet.config.changes import compare
from joblet.config.effective import effective_values, sections
from joblet.config.reference import config_schema
from joblet.config.section import RELOAD, Reload
from joblet.config.server import LoadedConfig, ServerConfig, read_server_config
from joblet.manifest import JobManifest
from jobletd.configured import local_settings_of, policy_of
from jobletd.job_bounds import JobBounds, bounded
from jobletd.policy import Policy
from jobletd.reloading import blob_limits_of
from jobletd.services.server import options
from jobletd.tls_context import credentials_of

SECURITY = {"serverCert": "c", "serverKey": "k", "caCert": "a"}


def loaded(path: Path, **content: Any) -> LoadedConfig:
    path.touch(0o600)
    path.write_text(yaml.safe_dump({"version": "3.0", "security": SECURITY, **content}))
    return read_server_config(str(path), {})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "joblet-config.yml"


def job(**spec: Any) -> JobManifest:
    command = {} if "script" in spec else {"command": ["true"]}
    return JobManifest.model_validate(
        {"apiVersion": "joblet/v1", "kind": "Job", "metadata": {"name": "one"}, "spec": {**command, **spec}}
    )


def limits(config: ServerConfig) -> Any:
    return bounded(job(), JobBounds.of(config.joblet)).spec.limits


def grpc_option(name: str) -> Callable[[ServerConfig], Any]:
    return lambda config: dict(options(config.grpc))[f"grpc.{name}"]


def settings(name: str) -> Callable[[ServerConfig], Any]:
    return lambda config: getattr(local_settings_of(config, policy_of(config)), name)


def policy(name: str) -> Callable[[ServerConfig], Any]:
    return lambda config: getattr(policy_of(config), name)


# key, value, what it is for, what is seen there. Where to listen, directories, logging and the rest of security are seen with a
# daemon: tests/integration/test_configuration.py and those of their parts.
EFFECTS: list[tuple[str, Any, Callable[[ServerConfig], Any], Any]] = [
    ("joblet.defaultCpuLimit", 50, lambda config: limits(config).cpu_percent, 50.0),
    ("joblet.defaultMemoryLimit", 256, lambda config: limits(config).memory_bytes, 256 << 20),
    (
        "joblet.defaultIoLimit",
        4096,
        lambda config: (limits(config).io.read_bytes, limits(config).io.write_bytes),
        (4096, 4096),
    ),
    ("joblet.jobTimeout", "30m", lambda config: bounded(job(), JobBounds.of(config.joblet)).spec.timeout_seconds, 1800),
    ("joblet.cleanupTimeout", "2s", settings("cleanup_seconds"), 2.0),
    ("joblet.validateCommands", True, policy("validate_commands"), True),
    ("security.minTlsVersion", 1.2, lambda config: credentials_of(config.security).min_version, "1.2"),
    ("cgroup.enableControllers", ["cpu", "devices"], settings("cgroup_controllers"), ("cpu", "devices")),
    ("cgroup.cleanupTimeout", "1s", settings("cgroup_empty_seconds"), 1.0),
    ("grpc.maxRecvMsgSize", 262144, grpc_option("max_receive_message_length"), 262144),
    ("grpc.maxSendMsgSize", "1Mi", grpc_option("max_send_message_length"), 1 << 20),
    ("grpc.maxHeaderListSize", 524288, grpc_option("absolute_max_metadata_size"), 524288),
    ("grpc.keepAliveTime", "30s", grpc_option("keepalive_time_ms"), 30_000),
    ("grpc.keepAliveTimeout", "5s", grpc_option("keepalive_timeout_ms"), 5_000),
    ("isolation.idBase", 100_000, settings("id_base"), 100_000),
    ("isolation.idSlots", 7, settings("id_slots"), 7),
    ("isolation.allowedCapabilities", ["CHOWN"], policy("capabilities"), frozenset({"CHOWN"})),
    ("isolation.allowedUpkeep", ["report"], policy("upkeep"), frozenset({"report"})),
    ("isolation.allowHostNetwork", True, policy("host_network"), True),
    ("isolation.allowUnconfined", True, policy("unconfined"), True),
    ("isolation.seccompProfiles", "/p", policy("seccomp_profiles"), "/p"),
    ("isolation.rootfsImages", "/i", policy("rootfs_images"), "/i"),
    ("isolation.defaultDisk", "1Gi", settings("default_disk_bytes"), 1 << 30),
    ("isolation.memoryDisk", "2Mi", settings("memory_disk_bytes"), 2 << 20),
    ("uploads.maxFileBytes", "5Mi", lambda config: blob_limits_of(config.uploads).file_bytes, 5 << 20),
    ("uploads.maxTotalBytes", "6Mi", lambda config: blob_limits_of(config.uploads).total_bytes, 6 << 20),
]


@pytest.mark.parametrize(("key", "value", "seen", "expected"), EFFECTS, ids=[key for key, *_ in EFFECTS])
def test_a_key_reaches_what_it_is_for(
    file: Path, key: str, value: Any, seen: Callable[[ServerConfig], Any], expected: Any
) -> None:
    section, name = key.split(".")
    content = {section: {**(SECURITY if section == "security" else {}), name: value}}
    assert seen(loaded(file, **content).config) == expected
    if not key.endswith("Limit"):  # without it there is none
        assert seen(loaded(file).config) != expected


def test_every_key_says_what_it_does_and_when_a_change_counts(file: Path) -> None:
    for name, section in sections(loaded(file).config):
        assert type(section).__doc__, f"section {name} has no docstring"
        for info in type(section).model_fields.values():
            where = f"{name}.{info.alias}"
            assert info.alias and info.description, f"{where}: make it with joblet.config.section.key"
            extra = info.json_schema_extra
            assert isinstance(extra, dict) and extra[RELOAD] in list(Reload), where


def test_limits_that_a_manifest_names_stay_and_a_service_has_no_end() -> None:
    bounds = JobBounds(cpu_percent=50, memory_bytes=1 << 20, io_bytes=4096, run_seconds=60)
    own = job(limits={"cpu": "10%", "memory": "64Mi", "io": {"read": 8192}}, timeout="5s")
    assert bounded(own, bounds) == own
    assert bounded(job(timeout="1h"), bounds).spec.timeout_seconds == 60
    assert bounded(job(restart="Always"), bounds).spec.timeout_seconds is None
    assert bounded(own, JobBounds()) is own


def test_a_controller_that_is_not_enabled_limits_nothing() -> None:
    hierarchy = open_hierarchy("/sys/fs/cgroup/joblet-test-none.slice", frozenset({"cpu"}))
    assert hierarchy.controllers <= {"cpu"}
    found = dict(hierarchy.unenforceable(CgroupLimits(memory_bytes=1 << 20, pids=5)))
    assert found.keys() == {"memory", "pids"}
    assert "cgroup.enableControllers in the daemon's configuration does not name memory" in found["memory"]


@pytest.mark.parametrize(
    ("spec", "refused"),
    [
        ({"command": ["no-such-command"]}, True),
        ({"command": ["/usr/bin/no-such-command"]}, True),
        ({"command": ["true"]}, False),
        ({"command": ["/bin/sh", "-c", "true"]}, False),
        ({"command": ["./brought-along"]}, False),
        ({"command": ["/work/brought-along"]}, False),
        ({"command": ["brought-along"], "env": {"PATH": "/work:/usr/bin"}}, False),
        ({"script": "no-such-command"}, False),
        ({"command": ["no-such-command"], "isolation": {"rootfs": "/usr/lib"}}, False),
    ],
)
def test_a_command_that_is_not_there_is_refused_where_that_is_asked_for(spec: dict[str, Any], refused: bool) -> None:
    manifest = job(**spec)
    Policy(rootfs_images="/usr").check_new(manifest)
    asking = Policy(rootfs_images="/usr", validate_commands=True)
    if refused:
        with pytest.raises(Exception, match=r"spec\.command: .*joblet\.validateCommands"):
            asking.check_new(manifest)
    else:
        asking.check_new(manifest)
    asking.check(manifest)  # a run that is on record starts, and says itself what it lacks


# --- what is shown, and what changes ----------------------------------------------------------------------------------


def test_each_value_is_shown_with_where_it_came_from_and_no_key_is(file: Path) -> None:
    found = loaded(file, server={"port": 1}, joblet={"jobTimeout": "90s"})
    found = read_server_config(str(file), {"LOG_LEVEL": "debug", "JOBLET_LOG_LEVEL": "warn"})
    shown = {value.path: (value.value, value.origin.replace(str(file), "FILE")) for value in effective_values(found)}
    assert shown["server.port"][0] == 1 and shown["server.port"][1].startswith("FILE:")
    assert shown["joblet.jobTimeout"][0] == "1m30s"
    assert shown["logging.level"] == ("WARNING", "JOBLET_LOG_LEVEL")
    assert shown["uploads.maxFileBytes"] == ("1Gi", "default")
    assert shown["security.serverKey"][0] == "(not shown)"
    assert shown["security.serverCert"][0] == "(PEM text of 1 lines)"
    json.dumps(shown)


def test_what_needs_a_restart_stays_as_it_was(file: Path) -> None:
    old = loaded(file).config
    new = loaded(file, server={"port": 5, "onShutdown": "keep"}, logging={"level": "ERROR"}).config
    changes = compare(old, new)
    assert (changes.at_once, changes.restart) == (("server.onShutdown", "logging.level"), ("server.port",))
    assert (changes.in_force.server.port, changes.in_force.server.on_shutdown) == (50051, "keep")
    assert compare(changes.in_force, new).at_once == ()


def test_the_schema_takes_what_the_daemon_takes(file: Path) -> None:
    content: dict[str, Any] = {"version": "3.0", "security": {**SECURITY, "minTlsVersion": 1.3}}
    for key, value, _, _ in EFFECTS:
        section, name = key.split(".")
        content.setdefault(section, {})[name] = value
    loaded(file, **{name: value for name, value in content.items() if name != "version"})
    schema = config_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(content, schema)
    for wrong in ({"server": {"prot": 1}}, {"logging": {"level": "loud"}}, {"joblet": {"jobTimeout": 5}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**content, **wrong}, schema)
