"""The ``/etc/hosts`` of a network's jobs: one file a network, mounted into each of them, and changed in place while they run."""

from __future__ import annotations

import os
from collections.abc import Iterable
from ipaddress import IPv4Address

HEAD = "127.0.0.1\tlocalhost\n::1\tlocalhost\n"


def hosts_text(network: str, entries: Iterable[tuple[IPv4Address, str]]) -> str:
    """network: its short name; a job is known as ``db`` and as ``db.backend``. entries: addresses with jobs' names."""
    lines = [f"{address}\t{job} {job}.{network}\n" for address, job in sorted(entries)]
    return HEAD + "".join(lines)


def write_in_place(path: str, text: str) -> None:
    """The same file with another content: it is mounted by its inode, so it cannot be replaced.

    One write, padded to the former length by empty lines, so that a reader sees the old or the new and never a torn line.
    """
    data = text.encode()
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        os.fchmod(fd, 0o644)
        os.pwrite(fd, data.ljust(os.fstat(fd).st_size, b"\n"), 0)
        os.ftruncate(fd, len(data))
    finally:
        os.close(fd)
