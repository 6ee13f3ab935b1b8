"""``make machine-test``: tests in a machine that QEMU emulates, for what user-mode Linux lacks: nf_tables, cpusets, processors;
and, with ``ARCH=arm64``, another architecture's kernel.

By hand only, as it takes both processors for minutes. Needs the Debian packages qemu-system-x86, qemu-system-common (virtiofsd),
linux-image-cloud-amd64, busybox-static, cpio and kmod; for arm64 qemu-system-arm instead of the first, no kernel, and a mirror
of Debian. As in the other guests, the root is this machine's (by virtiofs), under an overlay in the guest's memory, /tmp is a
file system of its own, and cgroups are v2. On arm64 the root is that of arm64_root.py, and the clone lies where it lies here.

python -m tests.guest.machine [--arch arm64] [--timeout SECONDS] [PYTEST ARGUMENT]...
python -m tests.guest.machine [--arch arm64] [--timeout SECONDS] -- COMMAND [ARGUMENT]...
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.guest.arm64_root import VENV, arm64_root
from tests.guest.boot import GUEST_FAILED, REPOSITORY, TIMED_OUT, GuestError

PATIENCE = float(os.environ.get("JOBLET_TEST_PATIENCE", "8"))  # more where the machine has other work
TEST_TIMEOUT = f"timeout={120 * PATIENCE:g}"  # of one test; pyproject.toml has that of a machine that is not emulated
MEMORY = "3G"
DAEMONS = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")
# What runs when nothing is named: what no other machine here can show.
NETWORKS = ("tests/integration/test_networks.py", "tests/integration/test_network_remains.py")
ANOTHER_KERNEL = (
    "tests/guest/arm64/compat.py",
    "tests/unit/seccomp",
    "tests/hostile/test_attacks.py",
    "tests/hostile/test_layers.py",
)
TESTS = {"amd64": NETWORKS, "arm64": ANOTHER_KERNEL}
EARLY_MODULES = ("virtio_pci", "virtio_blk", "virtiofs", "overlay")
LATE_MODULES = ("loop", "veth", "bridge", "nf_tables", "nft_chain_nat")
APPLETS = ("sh", "mount", "insmod", "mkdir", "switch_root", "poweroff", "sleep", "cp")
STATUS = "guest-status: "
INIT = """#!/bin/sh
export PATH=/bin
mount -t proc proc /proc; mount -t devtmpfs dev /dev
while read module; do insmod /modules/$module; done </modules/order
mkdir -p /lower /layers /new
mount -t virtiofs root /lower || { sleep 1; poweroff -f; }
mount -t tmpfs -o mode=755,size=60% layers /layers
mkdir -p /layers/upper /layers/work
mount -t overlay -o lowerdir=/lower,upperdir=/layers/upper,workdir=/layers/work root /new
mount -t tmpfs -o mode=755 run /new/run
cp /start /new/run/start
exec switch_root /new /bin/sh /run/start
"""
START = """
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 PYTHONUNBUFFERED=1
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o mode=620,gid=5,ptmxmode=666 devpts /dev/pts; mount -t tmpfs shm /dev/shm
ln -sf /proc/self/fd /dev/fd; for i in 0:stdin 1:stdout 2:stderr; do ln -sf /proc/self/fd/${i%:*} /dev/${i#*:}; done
mkfs.ext4 -q -F /dev/vda; mount -t ext4 /dev/vda /tmp; chmod 1777 /tmp
hostname guest; ip link set lo up
for module in @modules@; do modprobe $module; done
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do echo +$controller >/sys/fs/cgroup/cgroup.subtree_control; done
@before@
cd @repository@ && JOBLET_TEST_PATIENCE=@patience@ JOBLET_TEST_STRETCH=@stretch@ @command@
echo "@status@$?"
echo o >/proc/sysrq-trigger; sleep 60
"""


# Before the command, where the root is not this machine's: the clone at its place, with an environment for that architecture.
FOREIGN = f"""
ldconfig
mkdir -p /run/clone @repository@
mount -t tmpfs -o mode=755 clone /run/clone
mkdir -p /run/clone/lower /run/clone/upper /run/clone/work
mount -t virtiofs clone /run/clone/lower
mount -t overlay -o lowerdir=/run/clone/lower,upperdir=/run/clone/upper,workdir=/run/clone/work clone @repository@
mount --bind /{VENV} @repository@/.venv
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """What is emulated. root: what the guest has as its root, and its busybox and modules are taken from."""

    qemu: tuple[str, ...]
    console: str
    root: Path
    kernel: Path

    @property
    def release(self) -> str:
        return self.kernel.name.removeprefix("vmlinuz-")

    @property
    def foreign(self) -> bool:
        """Whether the root is another than this machine's."""
        return self.root != Path("/")


def emulated(architecture: str) -> Machine:
    """Raises GuestError."""
    if architecture == "amd64":
        return Machine(
            ("qemu-system-x86_64", "-M", "q35,memory-backend=memory"),
            "ttyS0",
            Path("/"),
            kernel(Path("/"), architecture),
        )
    root = arm64_root()
    return Machine(
        ("qemu-system-aarch64", "-M", "virt,memory-backend=memory"), "ttyAMA0", root, kernel(root, architecture)
    )


def kernel(root: Path, architecture: str) -> Path:
    """The newest one for clouds. Raises GuestError."""
    found = sorted((root / "boot").glob(f"vmlinuz-*-cloud-{architecture}"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise GuestError(f"there is no kernel in {root / 'boot'} (apt-get install linux-image-cloud-{architecture})")
    return found[-1]


def make_initrd(directory: Path, machine: Machine, start: str) -> Path:
    """busybox, the modules that the root needs, and the two scripts."""
    root = directory / "initrd"
    for name in ("bin", "modules", "proc", "dev"):
        (root / name).mkdir(parents=True)
    busybox = machine.root / "bin/busybox"
    if not busybox.exists():
        raise GuestError(f"there is no {busybox} (apt-get install busybox-static)")
    (root / "bin/busybox").write_bytes(busybox.read_bytes())
    (root / "bin/busybox").chmod(0o755)
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    order: list[str] = []
    for module in EARLY_MODULES:
        command = ["/sbin/modprobe", "--dirname", str(machine.root), "--set-version", machine.release]
        command += ["--show-depends", module]
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        for path in map(Path, re.findall(r"^insmod (\S+)", listed, re.MULTILINE)):
            if path.name not in order:
                order.append(path.name)
                (root / "modules" / path.name).write_bytes(path.read_bytes())
    (root / "modules/order").write_text("".join(f"{name}\n" for name in order))
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    (root / "start").write_text(start)
    packed = directory / "initrd.img"
    with packed.open("wb") as file:
        names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
        subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], input=names.encode(), stdout=file, cwd=root, check=True)
    return packed


@contextmanager
def shared(source: Path, directory: Path, tag: str) -> Iterator[Path]:
    """A directory of this machine by virtiofs; the socket to reach it."""
    daemon = next((path for path in DAEMONS if Path(path).exists()), None)
    if daemon is None:
        raise GuestError("there is no virtiofsd (apt-get install qemu-system-common, or virtiofsd)")
    socket = directory / f"{tag}.sock"
    options = ["-o", f"source={source}", "-o", "cache=always", "-o", "sandbox=chroot"]
    with (directory / f"{tag}.log").open("wb") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", daemon, f"--socket-path={socket}", *options],
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 10
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise GuestError(f"virtiofsd did not start: {(directory / f'{tag}.log').read_text()}")
            time.sleep(0.02)
        yield socket
    finally:
        process.kill()
        process.wait()


def run(machine: Machine, command: list[str], timeout_seconds: float) -> int:
    """Boot, run, pass the console on. Returns the command's exit status. Raises GuestError."""
    words = {
        **{"before": FOREIGN if machine.foreign else "", "repository": shlex.quote(str(REPOSITORY))},
        **{"modules": " ".join(LATE_MODULES), "patience": f"{PATIENCE:g}", "status": STATUS},
        "stretch": f"{2 * PATIENCE:g}",  # of what has to outlast a launch and some calls of the API
        "command": shlex.join(command),
    }
    start = START
    for name, text in words.items():
        start = start.replace(f"@{name}@", text)
    with tempfile.TemporaryDirectory(prefix="joblet-guest-") as name, ExitStack() as stack:
        directory = Path(name)
        initrd = make_initrd(directory, machine, start)
        disk = directory / "disk"
        with disk.open("wb") as file:
            file.truncate(4 << 30)
        argv = ["setpriv", "--pdeathsig", "KILL", "--", *machine.qemu, "-accel", "tcg,thread=multi", "-cpu", "max"]
        argv += ["-smp", "2", "-m", MEMORY, "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"]
        argv += ["-object", f"memory-backend-memfd,id=memory,size={MEMORY},share=on"]
        argv += ["-kernel", str(machine.kernel), "-initrd", str(initrd)]
        argv += ["-append", f"console={machine.console} quiet panic=-1 mitigations=off"]
        argv += [
            "-drive",
            f"file={disk},if=none,id=disk,format=raw,cache=unsafe",
            "-device",
            "virtio-blk-pci,drive=disk",
        ]
        shares = {"root": machine.root, **({"clone": REPOSITORY} if machine.foreign else {})}
        for tag, source in shares.items():
            socket = stack.enter_context(shared(source, directory, tag))
            argv += [
                "-chardev",
                f"socket,id={tag},path={socket}",
                "-device",
                f"vhost-user-fs-pci,chardev={tag},tag={tag}",
            ]
        return watch(argv, timeout_seconds)


def watch(argv: list[str], timeout_seconds: float) -> int:
    """Run it, and look for the status among what it writes."""
    status = GUEST_FAILED
    began = time.monotonic()
    process = subprocess.Popen(
        ["timeout", "--signal=KILL", f"{timeout_seconds:g}", *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            if line.startswith(STATUS.encode()):
                status = int(line.removeprefix(STATUS.encode()))
                continue
            sys.stdout.buffer.write(line)
            sys.stdout.flush()
    return TIMED_OUT if status == GUEST_FAILED and time.monotonic() - began >= timeout_seconds else status


def tests(arguments: list[str]) -> list[str]:
    """pytest with these arguments."""
    python = str(REPOSITORY / ".venv/bin/python")
    return [
        python,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--color=no",
        "--durations=10",
        "-o",
        TEST_TIMEOUT,
        *arguments,
    ]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.guest.machine", usage=__doc__)
    parser.add_argument("--arch", choices=("amd64", "arm64"), default="amd64")
    parser.add_argument("--timeout", type=float, default=3600.0, metavar="SECONDS")
    split = arguments.index("--") if "--" in arguments else len(arguments)
    chosen, rest = parser.parse_known_args(arguments[:split])
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # as an exception: its directory goes
    try:
        return run(
            emulated(chosen.arch), arguments[split + 1 :] or tests(rest or [*TESTS[chosen.arch]]), chosen.timeout
        )
    except GuestError as error:
        print(f"guest: {error}", file=sys.stderr)
        return GUEST_FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
