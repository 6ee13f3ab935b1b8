"""One thing that a host has or lacks, and what that means for jobs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Feature:
    """One thing that a host has or lacks. required: no job runs without it. cost: what its absence costs; mend: the way out."""

    name: str
    available: bool
    detail: str
    required: bool = False
    cost: str = ""
    mend: str = ""
