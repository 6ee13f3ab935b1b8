"""Boot a user-mode Linux guest, run one command in it as root, and hand back its exit status.

The guest's root is this machine's, seen through an overlay whose upper layer is the guest's own memory: it can write
anywhere, and all of it is gone afterwards. So the clone under test and its virtual environment are there at the same
paths. /tmp is an empty ext4 file system on a disk of its own, so that what lies there has a block device, as it has on
most machines.

What guest and host exchange lies in one run directory, in the guest /run/guest: settings and command go in, the exit status comes
out. Standard output and error are two raw serial lines, each a pipe here. The parts in the guest are init.sh (the first
process: makes the root) and start.sh (cgroups, then the command; or systemd, whose unit runs the command).
"""

from __future__ import annotations

import errno
import os
import select
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import BinaryIO

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
TIMED_OUT = 124
GUEST_FAILED = 125
LOOK_SECONDS = 0.25
CONSOLE_LINES = 100


class Init(Enum):
    """What runs as pid 1 once the guest is set up."""

    COMMAND = "command"
    SYSTEMD = "systemd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """What to boot. command: an argv, run in the repository's root. memory: as the kernel's mem= takes it.

    tmp_bytes: the size of /tmp, sparse on this machine. timeout_seconds: from here to the command's end.
    """

    command: tuple[str, ...]
    init: Init = Init.COMMAND
    environment: Mapping[str, str] = field(default_factory=dict)
    modules: tuple[str, ...] = ("loop", "veth", "bridge")
    memory: str = "2G"
    tmp_bytes: int = 4 << 30
    timeout_seconds: float = 600.0


class GuestError(Exception):
    """The guest cannot be booted on this machine; says what to install."""


def run(guest: Guest, *, stdout: BinaryIO, stderr: BinaryIO) -> int:
    """Boot, run, and return the command's exit status; 124 if it ran out of time, 125 if the guest died before.

    Streams the command's output. When the guest failed, the end of its console goes to ``stderr``. Raises GuestError.
    """
    with tempfile.TemporaryDirectory(prefix="joblet-guest-") as name:
        directory = Path(name)
        prepare(guest, directory)
        with (
            processor() as number,
            copied_to(stdout) as out,
            copied_to(stderr) as err,
            (directory / "console").open("wb") as console,
        ):
            process = subprocess.Popen(
                ["taskset", "--cpu-list", str(number), *kernel_command(guest, directory, out, err)],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                pass_fds=(out, err),
                env=kernel_environment(directory),
            )
            try:
                trouble = wait(process, directory / "console", guest.timeout_seconds)
            finally:
                process.kill()
                process.wait()
        return status_of(directory, trouble, stderr)


@contextmanager
def processor() -> Iterator[int]:
    """A processor that no other guest runs on, if there is one left.

    A guest stays on one: its kernel and its processes, all processes of ours, take turns at each system call and page fault,
    and to wake one on another processor takes three times as long.
    """
    allowed = sorted(os.sched_getaffinity(0))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as claim:
        for number in allowed:
            try:
                claim.bind(f"\0joblet-guest-processor-{number}")  # a name without a file, ours until we close it or die
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            yield number
            return
        yield allowed[os.getpid() % len(allowed)]


def prepare(guest: Guest, directory: Path) -> None:
    """Fill the run directory: both scripts, their settings, the command, the disk."""
    for script in ("init.sh", "start.sh"):
        shutil.copy(HERE / script, directory / script)
    settings = {
        "run_directory": str(directory),
        "kernel_modules": str(modules_directory()),
        "load_modules": " ".join(guest.modules),
        "repository": str(REPOSITORY),
        "init": guest.init.value,
    }
    (directory / "settings").write_text("".join(f"{key}={shlex.quote(value)}\n" for key, value in settings.items()))
    environment = {
        "HOME": "/root",
        "USER": "root",
        "LOGNAME": "root",
        "LANG": "C.UTF-8",
        "PATH": os.environ.get("PATH", os.defpath),
        **guest.environment,
    }
    lines = [f"export {key}={shlex.quote(value)}" for key, value in environment.items()]
    lines += [f"cd {shlex.quote(str(REPOSITORY))} || exit {GUEST_FAILED}", f"exec {shlex.join(guest.command)}"]
    (directory / "command").write_text("\n".join(lines) + "\n")
    disk = directory / "disk"
    with disk.open("wb") as file:
        file.truncate(guest.tmp_bytes)
    subprocess.run(["mkfs.ext4", "-q", "-F", disk], check=True, env={"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"})


def linux() -> str:
    """The user-mode kernel. Raises GuestError."""
    found = shutil.which("linux.uml")
    if found is None:
        raise GuestError("there is no linux.uml (install user-mode-linux, or run tools/system-packages test)")
    return found


def modules_directory() -> Path:
    """Where that kernel's modules are. Raises GuestError."""
    version = subprocess.run([linux(), "--version"], check=True, capture_output=True, text=True).stdout.strip()
    directory = Path("/usr/lib/uml/modules", version)
    if not directory.is_dir():
        raise GuestError(f"{directory} is missing: the kernel's modules come with the package user-mode-linux")
    return directory


def kernel_command(guest: Guest, directory: Path, out: int, err: int) -> list[str]:
    """The user-mode kernel's command line.

    A pid namespace of its own sees to it that none of the guest's processes outlives it; setpriv, that it does not outlive us.
    """
    return [
        *("setpriv", "--pdeathsig", "KILL", "--", "unshare", "--pid", "--fork", "--kill-child=KILL", "--"),
        *(linux(), f"mem={guest.memory}", f"uml_dir={directory}/uml", "umid=guest"),
        *("rootfstype=hostfs", "rootflags=/", "ro", f"init={directory}/init.sh", f"ubd0={directory}/disk"),
        # The console goes to our log; the two serial lines to the pipes.
        *("con=null", "con0=null,fd:1", "ssl=null", f"ssl1=null,fd:{out}", f"ssl2=null,fd:{err}"),
    ]


def kernel_environment(directory: Path) -> dict[str, str]:
    """The environment of the kernel as a process of this machine."""
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    if not memory_fits_shm():
        environment["TMPDIR"] = str(directory)
    if "amx_tile" in Path("/proc/cpuinfo").read_text().split():
        environment["LD_PRELOAD"] = str(build_xstate(directory))
    return environment


def memory_fits_shm() -> bool:
    """Whether /dev/shm can hold the guest's memory: containers often have a small one, or one without exec."""
    shm = os.statvfs("/dev/shm")
    return shm.f_bavail * shm.f_frsize > 4 << 30 and not shm.f_flag & os.ST_NOEXEC


def build_xstate(directory: Path) -> Path:
    """Compile what makes older user-mode kernels run on processors with AMX: see xstate.c."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise GuestError("this processor has AMX, which needs a C compiler here (run tools/system-packages test)")
    target = directory / "xstate.so"
    subprocess.run([compiler, "-O2", "-Wall", "-shared", "-fPIC", "-o", target, HERE / "xstate.c", "-ldl"], check=True)
    return target


@contextmanager
def copied_to(stream: BinaryIO) -> Iterator[int]:
    """A descriptor for a serial line; what comes out of it goes to ``stream`` at once, all of it by the end of the block.

    A pipe in between, because the kernel makes its descriptors non-blocking, also for whoever shares them.
    """
    source, sink = os.pipe()

    def copy() -> None:
        while data := os.read(source, 65536):
            stream.write(data)
            stream.flush()

    thread = threading.Thread(target=copy, name="guest output", daemon=True)
    thread.start()
    try:
        yield sink
    finally:
        os.close(sink)
        thread.join()
        os.close(source)


def wait(process: subprocess.Popen[bytes], console: Path, timeout_seconds: float) -> str | None:
    """Wait for the guest's end. Returns why it has to be ended from here, None if it ended by itself."""
    deadline = time.monotonic() + timeout_seconds
    pidfd = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        while (remaining := deadline - time.monotonic()) > 0:
            if poll.poll(min(remaining, LOOK_SECONDS) * 1000):
                return None
            # After a panic it would hang for ever.
            if b"Kernel panic" in console.read_bytes():
                return "its kernel panicked"
        return f"killed after {timeout_seconds:g} s"
    finally:
        os.close(pidfd)


def status_of(directory: Path, trouble: str | None, stderr: BinaryIO) -> int:
    """The command's exit status if it left one; otherwise explain, and 124 or 125."""
    status = directory / "status"
    if status.exists():
        return int(status.read_text())
    lines = (directory / "console").read_bytes().splitlines(keepends=True)[-CONSOLE_LINES:]
    stderr.write(b"--- the guest's console:\n" + b"".join(lines))
    stderr.write(f"guest: {trouble or 'ended before the command did'}\n".encode())
    stderr.flush()
    return TIMED_OUT if trouble and trouble.startswith("killed") else GUEST_FAILED


def run_here(guest: Guest) -> int:
    """``run`` with this process's own output."""
    return run(guest, stdout=sys.stdout.buffer, stderr=sys.stderr.buffer)
