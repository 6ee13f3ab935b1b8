"""A volume as an ext4 file system in an image file: made, mounted, grown. What its users do to it stays in it.

The image is as large as it has to be for the asked size to be free in it, and its blocks are reserved when it is made, so that no
write that the file system took is lost because the disk below is full. It is mounted where nobody can reach it but by the
descriptor: what is stored as root's there, with a set-user-id bit perhaps, must be in no user's way.

All of it waits for disks and commands: call it in a thread.
"""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess

from joblet.cgroup import readable_size
from joblet.crash_points import reached
from joblet.errors import JobletError
from joblet.sandbox import loop_device, syscalls
from jobletd.executor.local.workspace import mkfs

BLOCK_BYTES = 4096
GROUP_BYTES = 128 << 20  # of which each has its bitmaps and its part of the inode table
LEAST_GROUP_BYTES = 4 << 20  # a last group that is smaller may be left out by mkfs and resize
BYTES_AN_INODE = 16384
INODE_BYTES = 256
JOURNAL_FROM_BYTES = 8 << 20
SEARCH_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
# The tables of an image are zeros from the start: nothing has to be written over them after the first mount.
MOUNT_OPTIONS = {"errors": "remount-ro", "noinit_itable": ""}
EXT4_IOC_RESIZE_FS = 0x40086610
SUPERBLOCK_AT = 1024


class VolumeError(JobletError):
    """A volume cannot be had as it was declared."""


def image_bytes(size_bytes: int) -> int:
    """How large an image is that ``size_bytes`` of data fit into, beside the file system's own."""
    tables = size_bytes * INODE_BYTES // BYTES_AN_INODE
    growth = size_bytes // 200  # bitmaps, and descriptors of the groups that may come
    held_back = min(size_bytes // 48, 4096 * BLOCK_BYTES)  # by the kernel, so that delayed writes find their room
    total = size_bytes + tables + growth + held_back + (journal_mebibytes(size_bytes) << 20) + (192 << 10)
    total = -(-total // BLOCK_BYTES) * BLOCK_BYTES
    return total + LEAST_GROUP_BYTES if total > GROUP_BYTES and total % GROUP_BYTES < LEAST_GROUP_BYTES else total


def journal_mebibytes(size_bytes: int) -> int:
    """0: none. What is smaller than that is too small for one."""
    return 0 if size_bytes < JOURNAL_FROM_BYTES else min(max(size_bytes >> 25, 4), 64)


def make_image(image: str, size_bytes: int) -> int:
    """Make it, empty, and mount it. Returns the mount's descriptor. Raises VolumeError, OSError."""
    total = image_bytes(size_bytes)
    check_room(os.path.dirname(os.path.dirname(image)), total)
    fd = os.open(image, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, total)
        reached("volume.image-made")
        journal = journal_mebibytes(size_bytes)
        options = ["-q", "-F", "-m", "0", "-b", str(BLOCK_BYTES), "-i", str(BYTES_AN_INODE), "-I", str(INODE_BYTES)]
        options += ["-J", f"size={journal}"] if journal else ["-O", "^has_journal"]
        run([mkfs() or "mkfs.ext4", *options, "-E", "nodiscard,lazy_itable_init=1", image])
        os.fsync(fd)
        reached("volume.formatted")
    finally:
        os.close(fd)
    mount_fd = mount_image(image)
    reached("volume.mounted")
    try:
        root = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount_fd)
        try:
            # As /tmp: whoever has the volume may write to it, and files are of whoever made them.
            os.fchmod(root, 0o1777)
            os.rmdir("lost+found", dir_fd=root)
            os.fsync(root)
        finally:
            os.close(root)
    except OSError:
        os.close(mount_fd)
        raise
    return mount_fd


def mount_image(image: str) -> int:
    """One more mount of the one file system in it, which is nowhere. Raises OSError."""
    device_fd, device = loop_device.attach_once(image)
    try:
        return syscalls.mount_detached("ext4", device, MOUNT_OPTIONS)
    finally:
        os.close(device_fd)  # the mount holds the device; it frees itself with the last mount


def is_smaller(image: str, size_bytes: int) -> bool:
    """Whether it, or the file system in it, has not yet grown to that size. Raises OSError."""
    fd = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        superblock = os.pread(fd, 1024, SUPERBLOCK_AT)
        blocks = (
            int.from_bytes(superblock[0x04:0x08], "little") | int.from_bytes(superblock[0x150:0x154], "little") << 32
        )
        wanted = image_bytes(size_bytes)
        return os.fstat(fd).st_size < wanted or blocks * (1024 << superblock[0x18]) < wanted
    finally:
        os.close(fd)


def grow_image(image: str, mount_fd: int, size_bytes: int) -> None:
    """Let it have that size, whoever uses it. Raises VolumeError, OSError; PermissionError: not while it is mounted."""
    total = enlarge_file(image, size_bytes)
    device_fd, _ = loop_device.attach_once(image)
    try:
        loop_device.set_capacity(device_fd)
    finally:
        os.close(device_fd)
    root = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount_fd)
    try:
        fcntl.ioctl(root, EXT4_IOC_RESIZE_FS, (total // BLOCK_BYTES).to_bytes(8, "little"))
    finally:
        os.close(root)


def enlarge_file(image: str, size_bytes: int) -> int:
    """The file alone, not yet the file system in it. Returns its size. Raises VolumeError, OSError."""
    total = image_bytes(size_bytes)
    fd = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        if (missing := total - os.fstat(fd).st_size) > 0:
            check_room(os.path.dirname(os.path.dirname(image)), missing)
        os.posix_fallocate(fd, 0, total)
        reached("volume.image-enlarged")
    finally:
        os.close(fd)
    return total


def grow_unmounted(image: str) -> None:
    """The same for a daemon without CAP_SYS_RESOURCE: the file system grows into its image. Raises VolumeError if it is used."""
    fd = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # what a loop device of it holds
        except BlockingIOError:
            raise VolumeError(
                "cannot grow while a job uses it, as the daemon has no CAP_SYS_RESOURCE",
                where="spec.size",
                todo="it grows when the jobs that use it have ended",
            ) from None
        # They hold the lock too: if we die meanwhile, nobody mounts it under their hands.
        run(["e2fsck", "-f", "-p", image], fine=(0, 1), lock_fd=fd)
        run(["resize2fs", image], lock_fd=fd)
    finally:
        os.close(fd)


def check_room(directory: str, needed_bytes: int) -> None:
    """Raises VolumeError if the disk has not that much."""
    found = os.statvfs(directory)
    free = found.f_bavail * found.f_frsize
    if needed_bytes > free:
        raise VolumeError(
            f"needs {rounded(needed_bytes)} of the disk below {directory}, which has {rounded(free)} free",
            where="spec.size",
            todo="make room there, or declare less",
        )


def rounded(size_bytes: int) -> str:
    """For people: whole units, rounded up."""
    for unit in (1 << 40, 1 << 30, 1 << 20, 1 << 10):
        if size_bytes >= 10 * unit or (size_bytes and size_bytes % unit == 0):
            return readable_size(-(-size_bytes // unit) * unit)
    return readable_size(size_bytes)


def run(command: list[str], fine: tuple[int, ...] = (0,), lock_fd: int | None = None) -> None:
    """lock_fd: what it shall hold open as long as it runs. Raises VolumeError with its last line."""
    try:
        done = subprocess.run(
            command, env={"PATH": SEARCH_PATH}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            check=False, pass_fds=() if lock_fd is None else (lock_fd,),
        )  # fmt: skip
    except FileNotFoundError:
        raise VolumeError(f"there is no {command[0]} on this host", todo="apt-get install e2fsprogs") from None
    if done.returncode not in fine:
        last = done.stdout.decode(errors="replace").strip().splitlines()[-1:] or [os.strerror(errno.EIO)]
        raise VolumeError(f"{os.path.basename(command[0])} failed: {last[0]}", todo=f"{' '.join(command)} tells more")
