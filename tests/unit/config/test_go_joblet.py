"""A configuration of Go Joblet is read; what it says in vain is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from joblet.config import ConfigError
from joblet.config.server import read_server_config

GO = """\
version: "3.0"
server: {address: "0.0.0.0", port: 50051, mode: "server", timeout: "10s", minTlsVersion: "1.3", nodeId: ""}
security: {serverCert: c, serverKey: k, caCert: a}
joblet:
  defaultCpuLimit: 50
  defaultMemoryLimit: 256
  defaultIoLimit: 0
  maxConcurrentJobs: 5
  jobTimeout: "30m"
  cleanupTimeout: "2s"
  validateCommands: true
cgroup:
  baseDir: "/sys/fs/cgroup/joblet.slice/joblet.service"
  namespaceMount: "/sys/fs/cgroup"
  enableControllers: ["memory", "cpu", "io", "pids", "cpuset", "devices"]
  cleanupTimeout: "1s"
filesystem:
  baseDir: "/opt/joblet/jobs"
  tmpDir: "/tmp/job-{JOB_ID}"
  allowedMounts: ["/usr/bin"]
grpc: {maxRecvMsgSize: 262144, maxSendMsgSize: 1048576, maxHeaderListSize: 524288, keepAliveTime: "30s", keepAliveTimeout: "5s"}
logging: {level: "info", format: "text", output: "stdout"}
network:
  networks: {bridge: {cidr: 172.20.0.0/16}}
buffers: {}
"""
IN_VAIN = {
    "server.minTlsVersion": 2,
    "server.nodeId": 2,
    "cgroup.enableControllers": 15,
    "filesystem.baseDir": 18,
    "filesystem.tmpDir": 19,
    "filesystem.allowedMounts": 20,
    "network.networks": 24,
    "buffers": 25,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "joblet-config.yml"
    path.touch(0o600)
    path.write_text(GO)
    return path


def test_it_is_read_and_each_key_without_effect_is_named_with_its_line_and_why(file: Path) -> None:
    found = read_server_config(str(file), {})
    named = {warning.split(": ")[1]: warning for warning in found.warnings}
    assert {key: int(warning.removeprefix(f"{file}:").split(":")[0]) for key, warning in named.items()} == IN_VAIN
    assert all("has no effect here (" in warning for warning in found.warnings)
    config = found.config
    assert (config.server.timeout_seconds, config.joblet.max_concurrent_jobs, config.logging.output) == (
        10,
        5,
        "stdout",
    )
    assert config.spool.directory == "/opt/joblet/spool"


def test_a_mistyped_key_beside_them_is_still_an_error(file: Path) -> None:
    file.write_text(GO.replace("namespaceMount", "namespaceMoutn"))
    with pytest.raises(ConfigError, match=r":14:3: cgroup\.namespaceMoutn: unknown key"):
        read_server_config(str(file), {})


def test_there_is_one_mode(file: Path) -> None:
    with pytest.raises(ConfigError, match="JOBLET_MODE: 'init' is not a mode that exists"):
        read_server_config(str(file), {"JOBLET_MODE": "init"})
    assert read_server_config(str(file), {"JOBLET_MODE": "server"}).environment == {"server.mode": "JOBLET_MODE"}


def test_certificates_may_lie_in_files_of_their_own(file: Path, tmp_path: Path) -> None:
    paths = {}
    for name in ("serverCert", "serverKey", "caCert"):
        path = tmp_path / name
        path.touch(0o600)
        path.write_text(name)
        paths[name] = path
    text = GO.replace(
        "{serverCert: c, serverKey: k, caCert: a}", "{" + ", ".join(f"{n}Path: {p}" for n, p in paths.items()) + "}"
    )
    file.write_text(text)
    security = read_server_config(str(file), {}).config.security
    assert (security.server_cert, security.server_key, security.ca_cert) == ("serverCert", "serverKey", "caCert")
    paths["serverKey"].chmod(0o640)
    with pytest.raises(ConfigError, match=f"chmod 600 {paths['serverKey']}"):
        read_server_config(str(file), {})
    paths["serverKey"].chmod(0o600)
    paths["caCert"].chmod(0o666)
    with pytest.raises(ConfigError, match=f"chmod go-w {paths['caCert']}"):
        read_server_config(str(file), {})
    file.write_text(text.replace("{serverCertPath", "{serverCert: c, serverCertPath"))
    with pytest.raises(ConfigError, match=r"security\.serverCertPath: stands beside serverCert"):
        read_server_config(str(file), {})
