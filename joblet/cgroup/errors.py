"""The errors of this package."""

from __future__ import annotations

from joblet.errors import JobletError


class CgroupError(JobletError):
    """The kernel did not do what was asked of a cgroup."""
