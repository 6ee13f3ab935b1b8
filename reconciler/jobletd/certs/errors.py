"""The errors of ``joblet certs``."""

from __future__ import annotations

from joblet.errors import JobletError


class CertsError(JobletError):
    """Something that ``joblet certs`` cannot do; nothing has changed."""
