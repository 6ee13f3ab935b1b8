"""Output of one job to its log, beside ``command > file``: the same lines, and the same bytes in the end."""

from __future__ import annotations

import hashlib
import subprocess
import time

from tests.integration.sandbox_attempts import Sandboxes, sandboxes

MEGABYTES = 128
ROUNDS = 5
BUDGET = 0.5
LINES = f"yes 'a line of output as programs write them, of some sixty bytes' | head -c {MEGABYTES}M"


def main() -> None:
    with sandboxes() as box:
        pairs = [(plain(box), ours(box)) for _ in range(ROUNDS)]
    direct, logged = (sorted(column)[ROUNDS // 2] for column in zip(*pairs, strict=True))
    print(f"joblet: {MEGABYTES / logged:.0f} MB/s, and every byte is there")
    ratio = direct / logged
    print(f"ratio to command > file: {ratio:.2f}   ({MEGABYTES / direct:.0f} MB/s; budget: at least {BUDGET})")


def plain(box: Sandboxes) -> float:
    begin = time.perf_counter()
    subprocess.run(["/bin/sh", "-c", f"{LINES} > {box.root}/plain"], check=True)
    return time.perf_counter() - begin


def ours(box: Sandboxes) -> float:
    begin = time.perf_counter()
    attempt = box.run(["/bin/sh", "-c", LINES], log_bytes=1 << 30)
    spent = time.perf_counter() - begin
    digest = hashlib.sha256(attempt.output())
    if digest.hexdigest() != hashlib.sha256((box.root / "plain").read_bytes()).hexdigest():
        raise RuntimeError("the log holds other bytes than the file")
    (attempt.directory / "out.log").unlink()
    return spent
