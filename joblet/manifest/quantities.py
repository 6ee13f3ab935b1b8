"""Sizes, durations, CPU amounts and CPU lists: from text and to the shortest exact text. Errors are ValueError."""

from __future__ import annotations

import re
from decimal import Decimal

# JSON Schema's dialect of regular expressions (ECMA 262) and Python's agree on these; they are published in the schema.
SIZE_PATTERN = r"^[0-9]{1,19}(\.[0-9]{1,9})?(Ki|Mi|Gi|Ti|K|M|G|T)$|^[0-9]{1,19}$"
DURATION_PATTERN = r"^(?=.)([0-9]{1,6}d)?([0-9]{1,7}h)?([0-9]{1,9}m)?([0-9]{1,10}(\.[0-9]{1,3})?s)?([0-9]{1,12}ms)?$"
CPU_PATTERN = r"^[0-9]{1,6}(\.[0-9]{1,3})?%?$"
PERCENT_PATTERN = r"^(100|[0-9]{1,2})%$"
CPUS_PATTERN = r"^[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?){0,511}$"

_UNITS = {
    "Ti": 1 << 40,
    "Gi": 1 << 30,
    "Mi": 1 << 20,
    "Ki": 1 << 10,
    "T": 10**12,
    "G": 10**9,
    "M": 10**6,
    "K": 10**3,
    "": 1,
}
_SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?)(Ki|Mi|Gi|Ti|K|M|G|T|)", re.ASCII)
_DURATION = re.compile(
    r"(?=.)(?:([0-9]{1,6})d)?(?:([0-9]{1,7})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,10}(?:\.[0-9]{1,3})?)s)?(?:([0-9]{1,12})ms)?",
    re.ASCII,
)
_CPU = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(%?)", re.ASCII)
_CPUS = re.compile(CPUS_PATTERN.replace("$", r"\Z"), re.ASCII)

MAX_BYTES = 1 << 60
MAX_SECONDS = 36_500 * 86_400.0
MAX_CPU_PERCENT = 819_200.0  # 8192 cores, the most that Linux can be built for
MAX_CPU_NUMBER = 8191


def parse_size(value: object) -> int:
    """Bytes from ``512Mi``, ``1.5G`` or a whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        exact = Decimal(match[1]) * _UNITS[match[2]]
        number = int(exact)
        if exact != number or ("." in match[1] and not match[2]):
            raise ValueError(f"{shown(value)} is not a whole number of bytes")
    else:
        raise ValueError(f"{shown(value)} is not a size (use 512Mi, 512M or a number of bytes)")
    if not 0 <= number <= MAX_BYTES:
        raise ValueError(f"{shown(value)} is out of range (0 to 1048576Ti)")
    return number


def format_size(number: int) -> int | str:
    """The shortest exact spelling: ``512Mi``, ``1M``, or the number itself when no unit makes it shorter."""
    best: int | str = number
    for unit, factor in _UNITS.items():
        if unit and number and number % factor == 0:
            text = f"{number // factor}{unit}"
            if len(text) < len(str(best)):
                best = text
    return best


def parse_percent(value: object) -> int:
    """A whole number of percent from ``50%``."""
    if not isinstance(value, str) or not re.fullmatch(PERCENT_PATTERN.replace("$", ""), value, re.ASCII):
        raise ValueError(f"{shown(value)} is not a percentage (use 0% to 100%)")
    return int(value[:-1])


def parse_duration(value: object) -> float:
    """Seconds from ``1h30m``, ``90s``, ``500ms``, ``1d``. A number without a unit is refused: nobody can tell which."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise ValueError(f"{shown(value)} has no unit (use {shown(value)}s, 5m, 1h30m or 500ms)")
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{shown(value)} is not a duration (use 90s, 5m, 1h30m, 500ms or 7d)")
    days, hours, minutes, seconds, milliseconds = (Decimal(group or 0) for group in match.groups())
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds + milliseconds / 1000
    if total > Decimal(MAX_SECONDS):
        raise ValueError(f"{shown(value)} is longer than a hundred years")
    return float(total)


def format_duration(seconds: float) -> str:
    """``1h30m`` from 5400.0; exact to the millisecond."""
    rest = round(seconds * 1000)
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_cpu(value: object) -> float:
    """Percent of one core from ``150%``, or from a number of cores: ``1.5``."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        percent = float(round(Decimal(str(value)) * 100, 3)) if abs(value) < 1e6 else MAX_CPU_PERCENT + 1
    elif isinstance(value, str) and (match := _CPU.fullmatch(value)):
        percent = float(Decimal(match[1]) * (1 if match[2] else 100))
    else:
        raise ValueError(f"{shown(value)} is not a CPU amount (use 150% or 1.5, a number of cores)")
    if not 1.0 <= percent <= MAX_CPU_PERCENT:  # also refuses NaN; below 1 % the kernel refuses the quota
        raise ValueError(f"{shown(value)} is out of range (1% to {MAX_CPU_PERCENT:.0f}%)")
    return percent


def format_cpu(percent: float) -> str:
    """``150%`` from 150.0."""
    return f"{percent:.3f}".rstrip("0").rstrip(".") + "%"


def parse_cpus(value: object) -> str:
    """A CPU list as the kernel writes it, sorted and merged: ``0-2,4`` from ``4,0-1,2``."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f'{shown(value)} is a number; write a list of cores in quotes: "{value}" or "0-3"')
    if not isinstance(value, str) or not _CPUS.match(value):
        raise ValueError(f'{shown(value)} is not a list of cores (use "0-1,3")')
    cores: set[int] = set()
    for part in value.split(","):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if high > MAX_CPU_NUMBER:
            raise ValueError(f"{shown(value)}: there is no core {high} (0 to {MAX_CPU_NUMBER})")
        if low > high:
            raise ValueError(f"{shown(value)}: {part} runs backwards")
        cores.update(range(low, high + 1))
    return _cpu_list(sorted(cores))


def _cpu_list(cores: list[int]) -> str:
    parts: list[str] = []
    start = previous = cores[0]
    for core in [*cores[1:], -1]:
        if core == previous + 1:
            previous = core
            continue
        parts.append(str(start) if start == previous else f"{start}-{previous}")
        start = previous = core
    return ",".join(parts)


def shown(value: object) -> str:
    """A value as an error shows it: short, in the manifest's own words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value) if not isinstance(value, int) or abs(value) < 10**20 else "a very large number"
    if isinstance(value, str):
        text = value if len(value) <= 60 else value[:57] + "..."
        return '"' + text.encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    return f"a {type(value).__name__}"
