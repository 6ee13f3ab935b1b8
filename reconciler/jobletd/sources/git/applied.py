"""Which commit of a GitSource is in force, kept beside its mirror: so that it can be told while the repository is away."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass

import structlog

from joblet.atomicfile import write_atomic

log = structlog.get_logger("git")


@dataclass(frozen=True, slots=True)
class Applied:
    """revision: the commit. label: the branch or tag it was followed by. path: the directory. manifests: how many it declares."""

    revision: str
    label: str
    path: str
    author: str
    subject: str
    manifests: int


def load_applied(path: str) -> Applied | None:
    """None if there is none, or it cannot be read: then the next look finds out anew."""
    try:
        with open(path, encoding="utf-8") as file:
            applied = Applied(**json.load(file))
        words = (applied.revision, applied.label, applied.path, applied.author, applied.subject)
        "".join(words).encode()  # what is no text, or none that can be stored, is damaged
        if type(applied.manifests) is not int:
            raise ValueError("manifests is no number")
        return applied
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        log.warning("what is in force is not known until the next look", path=path, error=str(error))
        return None


def save_applied(path: str, applied: Applied | None) -> None:
    """Raises OSError."""
    if applied is not None:
        write_atomic(path, json.dumps(asdict(applied)).encode())
        return
    with suppress(FileNotFoundError):
        os.unlink(path)
