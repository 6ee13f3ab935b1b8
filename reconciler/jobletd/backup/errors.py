"""What is wrong with a backup, or keeps one from being made or put back."""

from __future__ import annotations

from joblet.errors import JobletError


class BackupError(JobletError):
    """A backup cannot be made or put back; nothing was changed."""


class ArchiveDamaged(BackupError):
    """A file is no whole backup: nothing of it is used."""
