"""The exit record of an attempt that did not reach the launcher."""

from __future__ import annotations

import os

from joblet.sandbox import exit_record
from jobletd.executor.local.limit_status import LimitNotEnforceable
from jobletd.model import AttemptId, Reason
from jobletd.policy import NotAllowed

_REASONS = ((LimitNotEnforceable, Reason.LIMIT_NOT_ENFORCEABLE), (NotAllowed, Reason.NOT_ALLOWED))


def record_not_started(directory: str, attempt_id: AttemptId, error: Exception, boot_id: str, ended_ns: int) -> None:
    """directory: the attempt's. error: why. Raises OSError."""
    reason = next((reason for kind, reason in _REASONS if isinstance(error, kind)), Reason.START_ERROR)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        exit_record.write(
            fd,
            {
                "attempt": attempt_id,
                "boot_id": boot_id,
                "outcome": exit_record.not_started(126, str(error)),
                "reason": reason.value,
                "cause": "",
                "started_ns": None,
                "ended_ns": ended_ns,
                "usage": {},
                "cpu_seconds": 0.0,
            },
            durable=True,
        )
    finally:
        os.close(fd)
