"""``make machine-test``: tests in a machine that QEMU emulates, for what user-mode Linux lacks: nf_tables, cpusets, processors.

By hand only, as it takes both processors for minutes. Needs the Debian packages qemu-system-x86, qemu-system-common (virtiofsd),
linux-image-cloud-amd64, busybox-static, cpio and kmod. As in the other guests, the root is this machine's (by virtiofs), under
an overlay in the guest's memory, /tmp is a file system of its own, and cgroups are v2.

python -m tests.guest.machine [--timeout SECONDS] [PYTEST ARGUMENT]...
"""

from __future__ import annotations

import argparse
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.guest.boot import GUEST_FAILED, REPOSITORY, TIMED_OUT, GuestError

PATIENCE = 8
MEMORY = "3G"
KERNELS = "vmlinuz-*-cloud-amd64"
DAEMONS = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")
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
cd @repository@ && JOBLET_TEST_PATIENCE=@patience@ @command@
echo "@status@$?"
echo o >/proc/sysrq-trigger; sleep 60
"""


def kernel() -> tuple[Path, str]:
    """The newest one for clouds, and its release. Raises GuestError."""
    found = sorted(Path("/boot").glob(KERNELS), key=lambda path: path.stat().st_mtime)
    if not found:
        raise GuestError(f"there is no /boot/{KERNELS} (apt-get install linux-image-cloud-amd64)")
    return found[-1], found[-1].name.removeprefix("vmlinuz-")


def make_initrd(directory: Path, release: str, start: str) -> Path:
    """busybox, the modules that the root needs, and the two scripts."""
    root = directory / "initrd"
    for name in ("bin", "modules", "proc", "dev"):
        (root / name).mkdir(parents=True)
    busybox = Path("/bin/busybox")
    if not busybox.exists():
        raise GuestError("there is no /bin/busybox (apt-get install busybox-static)")
    (root / "bin/busybox").write_bytes(busybox.read_bytes())
    (root / "bin/busybox").chmod(0o755)
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    order: list[str] = []
    for module in EARLY_MODULES:
        command = ["/sbin/modprobe", "--set-version", release, "--show-depends", module]
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
def shared_root(directory: Path) -> Iterator[Path]:
    """This machine's root by virtiofs; the socket to reach it."""
    daemon = next((path for path in DAEMONS if Path(path).exists()), None)
    if daemon is None:
        raise GuestError("there is no virtiofsd (apt-get install qemu-system-common, or virtiofsd)")
    socket = directory / "root.sock"
    options = ["-o", "source=/", "-o", "cache=always", "-o", "sandbox=chroot"]
    with (directory / "virtiofsd.log").open("wb") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", daemon, f"--socket-path={socket}", *options],
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 10
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise GuestError(f"virtiofsd did not start: {(directory / 'virtiofsd.log').read_text()}")
            time.sleep(0.02)
        yield socket
    finally:
        process.kill()
        process.wait()


def run(command: list[str], timeout_seconds: float) -> int:
    """Boot, run, pass the console on. Returns the command's exit status. Raises GuestError."""
    image, release = kernel()
    words = {"modules": " ".join(LATE_MODULES), "repository": shlex.quote(str(REPOSITORY)), "patience": str(PATIENCE)}
    start = START
    for name, text in {**words, "command": shlex.join(command), "status": STATUS}.items():
        start = start.replace(f"@{name}@", text)
    with tempfile.TemporaryDirectory(prefix="joblet-guest-") as name:
        directory = Path(name)
        initrd = make_initrd(directory, release, start)
        disk = directory / "disk"
        disk.touch()
        with disk.open("wb") as file:
            file.truncate(4 << 30)
        with shared_root(directory) as socket:
            argv = [
                "setpriv",
                "--pdeathsig",
                "KILL",
                "--",
                "qemu-system-x86_64",
                "-M",
                "q35",
                "-accel",
                "tcg,thread=multi",
            ]
            argv += [
                "-cpu",
                "max",
                "-smp",
                "2",
                "-m",
                MEMORY,
                "-nodefaults",
                "-no-reboot",
                "-display",
                "none",
                "-serial",
                "stdio",
            ]
            argv += ["-object", f"memory-backend-memfd,id=memory,size={MEMORY},share=on", "-numa", "node,memdev=memory"]
            argv += [
                "-kernel",
                str(image),
                "-initrd",
                str(initrd),
                "-append",
                "console=ttyS0 quiet panic=-1 mitigations=off",
            ]
            argv += ["-chardev", f"socket,id=root,path={socket}", "-device", "vhost-user-fs-pci,chardev=root,tag=root"]
            argv += ["-drive", f"file={disk},if=virtio,format=raw,cache=unsafe"]
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


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.guest.machine")
    parser.add_argument("--timeout", type=float, default=1500.0, metavar="SECONDS")
    chosen, rest = parser.parse_known_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # as an exception: its directory goes
    python = str(REPOSITORY / ".venv/bin/python")
    try:
        return run(
            [python, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", "--durations=10", *rest], chosen.timeout
        )
    except GuestError as error:
        print(f"guest: {error}", file=sys.stderr)
        return GUEST_FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
