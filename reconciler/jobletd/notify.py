"""sd_notify(3): tells systemd how we are; without NOTIFY_SOCKET it does nothing."""

from __future__ import annotations

import os
import socket


def sd_notify(state: str) -> None:
    """Send one state such as ``READY=1``. Raises OSError if systemd's socket does not take it."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.sendto(state.encode(), address)
