"""A file as a block device, loop(4), that frees itself when its last mount is gone, whatever dies before."""

import ctypes
import errno
import fcntl
import os

LOOP_CTL_GET_FREE = 0x4C82
LOOP_CONFIGURE = 0x4C0A
LO_FLAGS_AUTOCLEAR = 4
LO_FLAGS_DIRECT_IO = (
    16  # past the page cache of the image's file system: what is written counts, and is slowed down, as the job's
)
TRIES = 64


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
        os.close(image_fd)
