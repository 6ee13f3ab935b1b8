"""What cannot go to Slurm is refused when it is applied, and says so."""

from __future__ import annotations

from typing import Any

import pytest

from joblet.config.server import ServerConfig
from joblet.manifest import JobManifest
from jobletd.executor.engines import EngineRules

SECURITY = {"serverCert": "c", "serverKey": "k", "caCert": "a"}
SERVICE = {"restart": "Always", "probe": {"tcp": 80}}
CLUSTER = {"enabled": True, "sharedDirectory": "/shared"}


def config(**sections: Any) -> ServerConfig:
    return ServerConfig.model_validate({"version": "3.0", "security": SECURITY, **sections})


def problems(config: ServerConfig, **spec: Any) -> list[str]:
    document = {
        "apiVersion": "joblet/v1",
        "kind": "Job",
        "metadata": {"name": "one"},
        "spec": {"command": ["true"], **spec},
    }
    return [problem.path for problem in EngineRules(config)(JobManifest.model_validate(document))]


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"limits": {"cpus": "0"}}, "spec.limits.cpus"),
        ({"isolation": {"network": "bridge"}}, "spec.isolation.network"),
        ({"isolation": {"network": "backend"}}, "spec.isolation.network"),
        ({"isolation": {"rootfs": "/images/a.tar"}}, "spec.isolation.rootfs"),
        ({"isolation": {"seccomp": "/profiles/a.json"}}, "spec.isolation.seccomp"),
        ({"isolation": {"upkeep": ["backup"]}}, "spec.isolation.upkeep"),
        (
            {**SERVICE, "volumes": [{"name": "data", "path": "/data"}], "update": {"maxUnavailable": 0}},
            "spec.update.maxUnavailable",
        ),
    ],
)
def test_what_belongs_to_this_host_does_not_go_there(spec: dict[str, Any], path: str) -> None:
    assert problems(config(executor="slurm", slurm=CLUSTER), **spec) == [path]
    assert problems(config(slurm=CLUSTER), **spec, executor="slurm") == [path]
    assert problems(config(executor="slurm", slurm=CLUSTER), **spec, executor="local") == []


@pytest.mark.parametrize(
    "spec",
    [
        {"volumes": [{"name": "data", "path": "/data"}]},
        {"secrets": [{"name": "token"}]},
        {**SERVICE, "update": {"maxUnavailable": 0}},
        {"files": [{"path": "a", "sha256": "0" * 64, "size": 1}]},
        {"isolation": {"network": "none"}},
        {"isolation": {"network": "host"}},
    ],
)
def test_what_a_node_can_give_goes_there(spec: dict[str, Any]) -> None:
    assert problems(config(executor="slurm", slurm=CLUSTER), **spec) == []


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"volumes": [{"name": "data", "path": "/data"}]}, "spec.volumes"),
        ({"secrets": [{"name": "token"}]}, "spec.secrets"),
        (SERVICE, "spec.probe"),
        ({"files": [{"path": "a", "sha256": "0" * 64, "size": 1}]}, "spec.files"),
    ],
)
def test_what_comes_by_a_shared_directory_needs_one(spec: dict[str, Any], path: str) -> None:
    far = {"enabled": True, "nodeClients": "/clients"}
    assert problems(config(executor="slurm", slurm=far), **spec) == [path]
    assert problems(config(executor="slurm", slurm=far), files=[{"path": "a", "content": "b"}]) == []


def test_a_cluster_has_to_be_configured() -> None:
    assert problems(config(), executor="slurm") == ["spec.executor"]
    assert problems(config(), slurm={"partition": "a"}) == ["spec.slurm"]
    assert problems(config(slurm=CLUSTER), executor="slurm", slurm={"partition": "a"}) == []
    with pytest.raises(ValueError, match=r"needs slurm\.enabled"):
        config(executor="slurm")
    with pytest.raises(ValueError, match="needs sharedDirectory"):
        config(slurm={"enabled": True})
