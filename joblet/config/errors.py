"""The errors of configuration files."""

from __future__ import annotations

from joblet.errors import JobletError


class ConfigError(JobletError):
    """A configuration file is missing, unsafe or wrong. where: ``file`` or ``file:line:column``."""
