"""What launcher and init rehearse with looks like what they get."""

from __future__ import annotations

import marshal

from joblet.cgroup import CgroupLimits
from joblet.cgroup.v1 import V1Hierarchy
from joblet.manifest import JobManifest
from joblet.sandbox.sample_spec import CGROUP, PACKED, SPEC
from jobletd.executor import AttemptRequest
from jobletd.executor.local.launch_spec import launch_spec
from jobletd.model import AttemptId


def test_the_sample_has_the_fields_of_a_launch_spec() -> None:
    manifest = JobManifest.model_validate(
        {"apiVersion": "joblet/v1", "kind": "Job", "metadata": {"name": "one"}, "spec": {"command": ["true"]}}
    )
    spec = launch_spec(
        AttemptRequest(AttemptId("one-1"), "one", 1, manifest, None),
        attempt_dir="/attempts/one",
        log_path="/logs/one",
        id_base=70000,
        id_count=65536,
        workspace={"type": "tmpfs", "bytes": 1 << 20},
        rootfs="host",
        root_bytes=1 << 20,
        stop_signal=15,
        cgroup=V1Hierarchy("/sys/fs/cgroup/none.slice/none.service", {}, None).plan("one-1", CgroupLimits()),
        content_path=str,
    )
    assert {name: type(value) for name, value in SPEC.items()} == {name: type(value) for name, value in spec.items()}
    assert CGROUP.keys() == spec["cgroup"].keys()
    assert marshal.loads(PACKED) == SPEC
