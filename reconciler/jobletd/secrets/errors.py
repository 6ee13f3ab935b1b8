"""What can be wrong with secrets and the key they are sealed under. No message holds a value."""

from __future__ import annotations

from joblet.errors import JobletError


class SecretKeyError(JobletError):
    """The host's key is not there, not safe, or not the one that was used."""


class SecretDamaged(JobletError):
    """What the store holds of a secret does not open."""


class SecretUnknown(JobletError):
    """A sealed value that this host does not have."""


class SecretUnusable(JobletError):
    """A value that cannot be given in the form asked for."""
