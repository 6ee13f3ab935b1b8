"""The client's errors: each with its exit code."""

from __future__ import annotations

from joblet.errors import JobletError
from rnx import exit_codes


class ClientError(JobletError):
    """Something a command could not do."""

    exit_code = exit_codes.FAILURE


class InvalidRequest(ClientError):
    """What was asked for is wrong in itself: flags, manifests, selectors."""

    exit_code = exit_codes.INVALID


class NotFound(ClientError):
    """No job or run of that name."""

    exit_code = exit_codes.NOT_FOUND


class Unreachable(ClientError):
    """No answer from the daemon."""

    exit_code = exit_codes.UNREACHABLE


class TryAgain(Unreachable):
    """The daemon is there, and cannot do it at the moment."""

    exit_code = exit_codes.FAILURE


class NotAllowed(ClientError):
    """The certificate is not accepted, or its role may not do that."""

    exit_code = exit_codes.NOT_ALLOWED


class Conflict(ClientError):
    """The job belongs to another source, or its state forbids what was asked for."""

    exit_code = exit_codes.CONFLICT


class WaitTimedOut(ClientError):
    """What was waited for did not happen in time."""

    exit_code = exit_codes.TIMED_OUT
