"""What a job asks for that only this host can give: refused when the manifest is applied, with the way out."""

from __future__ import annotations

from collections.abc import Iterator

from joblet.manifest import JobManifest, JobSpec, Network
from jobletd.executor.slurm_node.request import BY_THE_DIRECTORY, by_the_shared_directory
from jobletd.policy import Problem

HERE = "leave it out, or set spec.executor: local"


def slurm_problems(manifest: JobManifest, *, shares_a_directory: bool) -> Iterator[Problem]:
    """Nothing is dropped in silence: what a node cannot give is said. shares_a_directory: with the nodes."""
    spec = manifest.spec
    if not shares_a_directory:
        yield from _problems_without_a_directory(spec)
    for given, path, what in (
        (spec.limits.cpus, "spec.limits.cpus", "which cores it gets is for Slurm to say"),
        (spec.limits.network, "spec.limits.network", "there is no network of the job's own on a node"),
        (spec.isolation.upkeep, "spec.isolation.upkeep", "what it asks of the daemon is asked on this host alone"),
    ):
        if given:
            yield Problem(path, f"{what}, and Slurm runs this job", HERE)
    if spec.volumes and spec.update.max_unavailable == 0:
        what = "0 would have two runs at a time use a volume, which one attempt at a time has on Slurm"
        yield Problem("spec.update.maxUnavailable", what, "use 1, or set spec.executor: local")
    if spec.isolation.network not in (Network.NONE, Network.HOST):
        what = f"the network {spec.isolation.network} is this host's, and Slurm runs this job"
        yield Problem("spec.isolation.network", what, "use none or host, or set spec.executor: local")
    if spec.isolation.rootfs != "host":
        yield Problem("spec.isolation.rootfs", "root file systems lie on this host, and Slurm runs this job", HERE)
    if spec.isolation.seccomp.startswith("/"):
        yield Problem("spec.isolation.seccomp", "the profile lies on this host, and Slurm runs this job", HERE)


def _problems_without_a_directory(spec: JobSpec) -> Iterator[Problem]:
    asked = [*by_the_shared_directory(spec), *([("probe", "a node tells of probes")] if spec.probe else [])]
    for field, what in asked:
        yield Problem(f"spec.{field}", f"{what} {BY_THE_DIRECTORY}", f"{HERE}, or have slurm.sharedDirectory")
