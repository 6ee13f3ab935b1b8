"""The node's side of the ``slurm`` executor: ``joblet sandbox-exec``, which Slurm's batch script is, and what it leaves to read.

It builds the sandbox of the local executor inside Slurm's allocation; see decisions 0064 to 0066.
"""
