"""Runs attempts on the nodes of a Slurm cluster: an engine that exists and is trusted places them, queues them, and survives
the loss of a node; on the node the same launcher and init as everywhere build the same sandbox."""

from jobletd.executor.slurm.executor import SlurmExecutor
from jobletd.executor.slurm.settings import SlurmSettings

__all__ = ["SlurmExecutor", "SlurmSettings"]
