"""sd_notify(3): tells systemd how we are; without NOTIFY_SOCKET it does nothing."""

from __future__ import annotations

import os
import socket

import structlog

log = structlog.get_logger("notify")


def sd_notify(state: str) -> None:
    """Send one state such as ``READY=1``. A socket that does not take it is no reason to end."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.sendto(state.encode(), address)
    except OSError as error:
        log.warning("NOTIFY_SOCKET does not answer", state=state, error=error.strerror)
