"""Which system calls a kernel is asked for: all numbers, and the arguments that a profile looks at."""

from __future__ import annotations

HIGHEST = 470  # above all that a profile names
NO_SUCH = (999, 0x0FFF_FFFF)
ARM_PRIVATE = range(0xF0001, 0xF0007)  # breakpoint, cacheflush, usr26, usr32, set_tls, get_tls
X32_BIT = 0x4000_0000
# uretprobe and uprobe of x86_64: the kernel asks no filter about them, and ends whoever calls them from elsewhere than a probe.
UNFILTERED = (335, 336)
# What is compared: clone's flags, personalities, families of sockets and pairs, requests of ioctl.
CLONE_FLAGS = (
    0,
    17,
    0x0002_0000,
    0x0200_0000,
    0x0400_0000,
    0x0800_0000,
    0x1000_0000,
    0x2000_0000,
    0x4000_0000,
    0x003D_0F00,
)
PERSONALITIES = (0, 8, 0x2_0000, 0x2_0008, 0x4_0000, 0x40_0000, 0xFFFF_FFFF)
FAMILIES = (*range(46), 0xFFFF_FFFF)
REQUESTS = (0x5401, 0x5412, 0x541C, 0x5413, 0x541D, 0xFFFF_FFFF)
BY_ARGUMENT = {
    "x86_64": {"clone": 56, "personality": 135, "socket": 41, "socketpair": 53, "ioctl": 16},
    "aarch64": {"clone": 220, "personality": 92, "socket": 198, "socketpair": 199, "ioctl": 29},
    "arm": {"clone": 120, "personality": 136, "socket": 281, "socketpair": 288, "ioctl": 54},
}


def x32_questions() -> list[list[int]]:
    """Of x32, whose own ones are from 512 on."""
    return [[X32_BIT | number] for number in range(HIGHEST + 90)]


def questions(architecture: str) -> list[list[int]]:
    """[number, argument...] of each."""
    numbers = [*range(HIGHEST), *NO_SUCH]
    if architecture == "arm":
        numbers += ARM_PRIVATE
    if architecture == "x86_64":
        numbers = [number for number in numbers if number not in UNFILTERED]
    asked = [[number] for number in numbers]
    known = BY_ARGUMENT[architecture]
    asked += [[known["clone"], flags] for flags in CLONE_FLAGS]
    asked += [[known["personality"], value] for value in PERSONALITIES]
    asked += [[known[name], family] for name in ("socket", "socketpair") for family in FAMILIES]
    wide = (
        (0,) if architecture == "arm" else (0, 0x1_0000_0000, 0x7FFF_0000_0000_0000)
    )  # the kernel looks at the low half
    asked += [[known["ioctl"], 0, high | request] for high in wide for request in REQUESTS]
    return asked
