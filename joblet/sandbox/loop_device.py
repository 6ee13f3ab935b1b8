"""A file as a block device, loop(4), that frees itself when its last mount is gone, whatever dies before."""

import ctypes
import errno
import fcntl
import os
import sys
import time

LOOP_CTL_GET_FREE = 0x4C82
LOOP_CONFIGURE = 0x4C0A
LOOP_GET_STATUS64 = 0x4C05
LOOP_SET_CAPACITY = 0x4C07
LO_FLAGS_AUTOCLEAR = 4
LO_FLAGS_DIRECT_IO = (
    16  # past the page cache of the image's file system: what is written counts, and is slowed down, as the job's
)
TRIES = 64
ENDING_WITHIN_SECONDS = 5.0
PAUSE_SECONDS = 0.02
_INFO_BYTES = 232  # struct loop_info64, which begins with lo_device and lo_inode


class loop_config(ctypes.Structure):
    """struct loop_config of <linux/loop.h>, its struct loop_info64 as raw bytes but for lo_flags."""

    _fields_ = (
        *(("fd", ctypes.c_uint32), ("block_size", ctypes.c_uint32)),
        *(("info_head", ctypes.c_char * 52), ("lo_flags", ctypes.c_uint32), ("info_tail", ctypes.c_char * 176)),
        ("reserved", ctypes.c_uint64 * 8),
    )


def attach(image: str) -> tuple[int, str]:
    """Attach ``image`` to a free loop device. Returns the open device and its path; closing it before a mount frees it.

    Raises OSError.
    """
    image_fd = os.open(image, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return _attach(image, image_fd)
    finally:
        os.close(image_fd)


def attach_once(image: str) -> tuple[int, str]:
    """The same for an image that is to be used by many and for long: the device that it is attached to already, if it is.

    Two devices of one image would be two file systems that know nothing of each other. What prevents that is a lock on the open
    file that the device takes over: it is held exactly as long as the device holds the image, whatever dies. Raises OSError.
    """
    image_fd = os.open(image, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        deadline = time.monotonic() + ENDING_WITHIN_SECONDS
        while True:
            try:
                fcntl.flock(image_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if found := find(image_fd):
                    return found
                if time.monotonic() > deadline:
                    raise OSError(errno.EBUSY, "somebody else holds it locked", image) from None
                time.sleep(PAUSE_SECONDS)  # its device has lost its last user, and lets go of it
            else:
                return _attach(image, image_fd)
    finally:
        os.close(image_fd)


def find(image_fd: int) -> tuple[int, str] | None:
    """The loop device that holds this file, opened, so that it stays; None if there is none."""
    image = os.fstat(image_fd)
    for name in os.listdir("/sys/block"):
        if not name.startswith("loop") or not os.path.exists(f"/sys/block/{name}/loop/backing_file"):
            continue
        try:
            with open(f"/sys/block/{name}/loop/backing_file") as file:
                backing = os.stat(file.read().rstrip("\n"))
            if (backing.st_dev, backing.st_ino) != (image.st_dev, image.st_ino):
                continue
            fd = os.open(f"/dev/{name}", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # of others: gone, or not to be seen from here
        # Open, it can't be given another file any more: look at what it has now.
        if _file_of(fd) == (image.st_dev, image.st_ino):
            return fd, f"/dev/{name}"
        os.close(fd)
    return None


def set_capacity(device_fd: int) -> None:
    """Let the device see that its file has grown. Raises OSError."""
    fcntl.ioctl(device_fd, LOOP_SET_CAPACITY, 0)


def _file_of(device_fd: int) -> tuple[int, int] | None:
    """Device and inode number of the file that a loop device holds."""
    try:
        info = fcntl.ioctl(device_fd, LOOP_GET_STATUS64, bytes(_INFO_BYTES))
    except OSError:
        return None  # none any more
    return int.from_bytes(info[:8], sys.byteorder), int.from_bytes(info[8:16], sys.byteorder)


def _attach(image: str, image_fd: int) -> tuple[int, str]:
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(TRIES):
            device = f"/dev/loop{fcntl.ioctl(control, LOOP_CTL_GET_FREE)}"
            fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
            try:
                flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO
                fcntl.ioctl(fd, LOOP_CONFIGURE, bytes(loop_config(fd=image_fd, lo_flags=flags)))
            except OSError as error:
                os.close(fd)
                if error.errno != errno.EBUSY:  # somebody else took it meanwhile: the next one
                    raise
            else:
                return fd, device
        raise OSError(errno.EBUSY, "no free loop device", image)
    finally:
        os.close(control)
