"""What the indexes of an array are called: by the daemon, for which each is a job of its own, and by people.

An index is known as ``<job>.<run of the array>.<index>``, which no job can be called; people write ``<job>.<index>``.
"""

from __future__ import annotations


def index_name(job: str, array_run: str, index: int) -> str:
    """The daemon's name."""
    return f"{job}.{array_run}.{index}"


def job_of_index(name: str) -> str:
    """The job that an index belongs to; of a job that job itself."""
    return name.partition(".")[0]


def as_written(name: str) -> str:
    """What people write for the job or index that the daemon knows by this name."""
    job, dot, rest = name.partition(".")
    return f"{job}.{rest.rpartition('.')[2]}" if dot else name
