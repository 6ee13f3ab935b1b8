"""Where on a host a value lies that nothing but a job may hold."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path


def files_with(forms: Sequence[bytes], *roots: Path) -> list[str]:
    """Every file below that holds the value in one of its forms. Daemons write and remove files meanwhile."""
    files = [path for root in roots for path in _files(root)]
    assert files
    return [path for path in files if any(form in _content(path) for form in forms)]


def _files(root: Path) -> Iterator[str]:
    for directory, _, names in os.walk(root):
        paths = (os.path.join(directory, name) for name in names)
        yield from (path for path in paths if os.path.isfile(path) and not os.path.islink(path))


def _content(path: str) -> bytes:
    with suppress(FileNotFoundError):  # its writer has renamed or removed it
        return Path(path).read_bytes()
    return b""
