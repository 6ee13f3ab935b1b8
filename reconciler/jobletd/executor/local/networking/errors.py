"""What can be wrong with a network."""

from __future__ import annotations

from joblet.errors import JobletError


class NetworkUnavailable(JobletError):
    """This host cannot give jobs a network, or not this one."""


class AddressesExhausted(JobletError):
    """As many jobs are on a network as it has addresses."""
