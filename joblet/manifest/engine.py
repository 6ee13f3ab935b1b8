"""What runs a job's attempts, and what an engine that has many hosts is asked for on its behalf."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import Field

from joblet.manifest import fields as f
from joblet.manifest.fields import ListInput
from joblet.manifest.model_base import ManifestModel


class SlurmRequest(ManifestModel):
    """What Slurm is asked for, where it is that runs the job; what is left out is as the daemon's configuration says."""

    partition: f.OptionalSlurmWord = Field(default=None, description="The partition, as in sbatch --partition.")
    account: f.OptionalSlurmWord = Field(default=None, description="Who is charged, as in sbatch --account.")
    qos: f.OptionalSlurmWord = Field(default=None, description="The quality of service, as in sbatch --qos.")
    constraint: f.OptionalSlurmConstraint = Field(
        default=None, description="Features that the node must have, as in sbatch --constraint: `ssd&avx`."
    )
    node: f.OptionalSlurmWord = Field(default=None, description="The node that it has to run on.")
    exclude: Annotated[tuple[f.SlurmWord, ...], ListInput] = Field(
        default=(), description="Nodes that it must not run on.", max_length=64
    )


def engine_problems(spec: Mapping[str, object]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Broken rules of a raw spec: path below it, and what is wrong."""
    if "slurm" in spec and spec.get("executor") == "local":
        yield ("slurm",), "has no meaning with executor: local; leave one of them out"
