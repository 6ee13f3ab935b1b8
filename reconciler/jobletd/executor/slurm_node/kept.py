"""What a node keeps of attempts that have ended, as long as the daemon has not fetched it: bounded by number, size and age."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from jobletd.executor.local.workspace import remove_workspace
from jobletd.executor.slurm_node.directories import NodeDirectories

MOST_ATTEMPTS = 1000
MOST_BYTES = 1 << 30
LONGEST_SECONDS = 7 * 86400.0
LOOK_SECONDS = 60.0
STAMP = "trimmed"


def trim(directories: NodeDirectories, now: float | None = None) -> int:
    """Remove the oldest of what is too much, unless somebody looked within the last minute. Returns how many were removed."""
    now = time.time() if now is None else now
    stamp = f"{directories.state}/{STAMP}"
    with suppress(FileNotFoundError):
        if 0 <= now - os.stat(stamp).st_mtime < LOOK_SECONDS:
            return 0
    with open(stamp, "w"):
        os.utime(stamp, (now, now))
    ended = []  # or claimed alone: fenced off, forgotten, or about to begin
    for entry in os.scandir(f"{directories.state}/attempts"):
        place = directories.kept(entry.name)
        if not os.path.exists(directories.live(entry.name)):
            ended.append((entry.stat().st_mtime, place.directory, place.log.size_bytes()))
    ended.sort(reverse=True)
    removed = total = 0
    for number, (changed, directory, size) in enumerate(ended):
        total += size
        if number >= MOST_ATTEMPTS or total > MOST_BYTES or now - changed > LONGEST_SECONDS:
            remove_workspace(directory)
            removed += 1
    return removed
