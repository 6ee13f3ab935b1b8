"""What is asked of a cgroup compared with what the kernel says it has: pure functions, one for each kind of limit."""

from __future__ import annotations

from joblet.cgroup.model import LimitReading
from joblet.cgroup.quota import LEAST_PERCENT

PAGE_BYTES = 65536  # the largest page of any architecture we run on: sizes are rounded down to pages
OTHER_VALUE = "the kernel has another value"
_UNITS = (("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10))


def readable_size(value: int | None) -> str:
    """Bytes as people write them: the largest binary unit that is exact."""
    if value is None:
        return "max"
    for unit, factor in _UNITS:
        if value and value % factor == 0:
            return f"{value // factor}{unit}"
    return str(value)


def readable_percent(value: float) -> str:
    """A share of one core as people write it."""
    return f"{value:.4g}%" if value < 1000 else f"{value:.10g}%"


def parse_cpus(text: str) -> frozenset[int]:
    """The CPUs of a list such as ``0-1,3``. Raises ValueError."""
    cpus: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first:
            cpus.update(range(int(first), int(last or first) + 1))
    return frozenset(cpus)


def percent_reading(asked: float, effective: float | None, missing: str) -> LimitReading:
    """The kernel keeps whole microseconds of quota, and at least 0.1 % of a core."""
    enforced = effective is not None and abs(effective - max(asked, LEAST_PERCENT)) <= max(asked, 1) * 0.001
    shown = "max" if effective is None else readable_percent(effective)
    message = missing or ("" if enforced else OTHER_VALUE)
    if enforced and asked < LEAST_PERCENT:
        message = f"the kernel's least is {LEAST_PERCENT:g}%"
    return LimitReading("cpu", readable_percent(asked), shown, enforced, message)


def cpus_reading(asked: str, effective: str | None, missing: str) -> LimitReading:
    """Compared as sets: the kernel writes lists its own way."""
    enforced = bool(effective) and parse_cpus(effective or "") == parse_cpus(asked)
    message = missing or ("" if enforced else OTHER_VALUE)
    return LimitReading("cpus", asked, effective or "all", enforced, message)


def size_reading(name: str, asked: int, effective: int | None, missing: str = "") -> LimitReading:
    """The kernel rounds down to pages."""
    enforced = effective is not None and 0 <= asked - effective < PAGE_BYTES
    message = missing or ("" if enforced else OTHER_VALUE)
    return LimitReading(name, readable_size(asked), readable_size(effective), enforced, message)


def count_reading(name: str, asked: int, effective: int | None, missing: str = "") -> LimitReading:
    """Counts are kept exactly."""
    enforced = effective == asked
    message = missing or ("" if enforced else OTHER_VALUE)
    return LimitReading(name, str(asked), "max" if effective is None else str(effective), enforced, message)


def io_reading(label: str, asked: int, effective: int | None, missing: str, note: str = "") -> LimitReading:
    """Bytes or operations a second, kept exactly. note: what to know about it even where it holds."""
    enforced = effective == asked
    shown = readable_size if not label.endswith("Ops") else str
    message = missing or (note if enforced else OTHER_VALUE)
    return LimitReading(label, shown(asked), "max" if effective is None else shown(effective), enforced, message)


def swap_reading(
    asked: int, effective: int | None, *, swappiness: int | None = None, missing: str = ""
) -> LimitReading:
    """Where the kernel does not account for swap nothing can be read: no swap on the host, or a swappiness of 0, is as good
    as none allowed, since a cgroup at its memory limit is then not swapped out."""
    if missing:
        return LimitReading("swap", readable_size(asked), "max", False, missing)
    if effective is not None:
        return size_reading("swap", asked, effective)
    if not host_has_swap():
        return LimitReading("swap", readable_size(asked), "0", True, "this host has no swap")
    if asked == 0 and swappiness == 0:
        return LimitReading("swap", "0", "0", True, "by memory.swappiness 0: this kernel does not account for swap")
    return LimitReading("swap", readable_size(asked), "max", False, "this kernel does not account for swap")


def host_has_swap() -> bool:
    """Whether any swap is switched on now."""
    with open("/proc/swaps") as file:
        return len(file.readlines()) > 1
