"""Ports that a test chooses for a server of another process."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

LOOPBACK = "127.0.0.1"


@contextmanager
def held_port(port: int = 0) -> Iterator[int]:
    """A port of loopback that the kernel gives to nobody who asks for any, and that a server which names it gets all the same:
    bound here with SO_REUSEADDR, and not listened at. port: 0 for one that is free."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((LOOPBACK, port))
        yield holder.getsockname()[1]
