"""``make run``: the main job on real manifests, in a throw-away directory, from set-up to an empty host.

Drops examples/hello.yml into the spool, applies examples/limits.yml with rnx, shows their live output and final status,
and stops the daemon. Nothing is left running or lying about.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
READY_WITHIN_SECONDS = 20.0
READY = re.compile(r"\bready +address=")


def say(text: str) -> None:
    """Show what happens now."""
    print(f"\n\033[1m== {text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def free_port() -> int:
    """A TCP port of loopback that nobody uses at present."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start_daemon(config: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start ``joblet serve`` and wait until its log says that it is ready. Raises SystemExit with the log otherwise."""
    with log.open("wb") as stream:
        daemon = subprocess.Popen([BIN / "joblet", "serve", "--config", config], stdout=stream, stderr=stream)
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    while not READY.search(log.read_text()):
        if daemon.poll() is not None or time.monotonic() > deadline:
            daemon.kill()
            raise SystemExit(f"the daemon did not get ready:\n{log.read_text()}")
        time.sleep(0.02)
    return daemon


def show_jobs(root: Path) -> None:
    """The two ways in, their output, and what is on record afterwards."""
    rnx: list[str | Path] = [BIN / "rnx", "--config", root / "config/rnx-config.yml"]

    def call(*arguments: str | Path) -> None:
        subprocess.run([*rnx, *arguments], check=True)

    say("drop examples/hello.yml into the spool")
    # Copied beside it and renamed, so that the daemon never sees half a file.
    scratch = root / "spool/.hello.tmp"
    shutil.copy(REPOSITORY / "examples/hello.yml", scratch)
    scratch.rename(root / "spool/hello.yml")
    say("rnx apply -f examples/limits.yml")
    call("apply", "-f", REPOSITORY / "examples/limits.yml")
    for name in ("hello", "limits"):
        wait_for_job(rnx, name)
        say(f"rnx log -f {name}")
        call("log", "-f", name)
    for name in ("hello", "limits"):
        call("wait", name, "--timeout", "30s")
        say(f"rnx status {name}")
        call("status", name)
    say("rnx list")
    call("list")


def wait_for_job(rnx: list[str | Path], name: str) -> None:
    """Wait until the daemon knows a job: one that was dropped into the spool is not acknowledged to anybody."""
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    while subprocess.run([*rnx, "get", name, "-o", "name"], capture_output=True, check=False).returncode != 0:
        if time.monotonic() > deadline:
            raise SystemExit(f"job {name} did not appear within {READY_WITHIN_SECONDS:g} s")


def main() -> int:
    if os.geteuid() != 0:
        print("joblet makes namespaces and cgroups, so this needs root (sudo make run)", file=sys.stderr)
        return 1
    root = Path(tempfile.mkdtemp(prefix="joblet-demo-"))
    base = f"/sys/fs/cgroup/joblet.slice/{root.name}"
    try:
        say(f"joblet init --root {root}")
        subprocess.run(
            [BIN / "joblet", "init", "--root", root / "host", "--port", str(free_port()), "--cgroup-base", base],
            check=True,
        )
        say("joblet serve")
        daemon = start_daemon(root / "host/config/joblet-config.yml", root / "daemon.log")
        try:
            show_jobs(root / "host")
        finally:
            say("stop the daemon")
            daemon.terminate()
            status = daemon.wait(timeout=30)
        print(f"the daemon ended with status {status}")
        return status
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    sys.exit(main())
