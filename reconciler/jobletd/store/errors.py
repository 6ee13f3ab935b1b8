"""Why the database cannot be used."""

from __future__ import annotations

from joblet.errors import JobletError


class StoreError(JobletError):
    """The database cannot be used."""


class StoreFull(StoreError):
    """There is no room to write; what is there can be read."""


class StoreDamaged(StoreError):
    """What is there is not a whole database."""
