"""What furnishes an attempt with something from outside its sandbox: volumes, a network."""

from __future__ import annotations

from typing import Any, Protocol

from jobletd.executor import AttemptRequest
from jobletd.model import AttemptId, LimitStatus


class Provider(Protocol):
    """One for each kind of thing. What it gives to an attempt it finds again after a restart, by the attempt's id alone."""

    async def attach(
        self, request: AttemptRequest, first_id: int, descriptors: list[int], limits: list[LimitStatus]
    ) -> dict[str, Any]:
        """Get ready what this attempt asks for. Returns what to put into its launch spec (empty: it asks for nothing).

        first_id: the host id that is 0 in the job. descriptors: the provider appends those that the init needs, and writes
        their index in that list into the spec; they are closed for it after the launch. limits: it appends those that it set,
        as read back. Raises JobletError, OSError: the attempt does not start then.
        """

    async def detach(self, attempt_id: AttemptId) -> None:
        """Free what an attempt that has ended, or never began, was given; without harm if that is nothing."""

    async def keep_only(self, live: frozenset[AttemptId]) -> None:
        """Free what attempts that are none of these were given: once, after the start."""
