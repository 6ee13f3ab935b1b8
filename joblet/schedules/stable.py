"""Numbers that look random and are the same each time: from a hash, so that no restart draws them anew."""

from __future__ import annotations

import hashlib


def stable_number(name: str, use: str, below: int) -> int:
    """From 0 to below - 1, for that name and that use of it."""
    digest = hashlib.sha256(f"{name}\n{use}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % below
