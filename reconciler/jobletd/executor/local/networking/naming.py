"""What our interfaces are called, so that they are found again, and told from all others, by their names alone. Pure.

An interface name has at most 15 bytes (IFNAMSIZ). ``jb12345`` begins all of one daemon's, ``jb12345n`` its bridges (n is no
hexadecimal digit), and the host's end of a job's cable ends in the job's address: ``jb123450ad50003`` is 10.213.0.3. So an
address is in use exactly if the kernel knows the name; nothing needs to be written down. The job's MAC address follows from the
address, too.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from ipaddress import IPv4Address

ALIAS_BYTES = 255  # IFALIASZ less its final NUL
PLACE_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Naming:
    """The names of one daemon's things. directory: that of its state, which no other daemon has."""

    directory: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.directory.encode()).hexdigest()

    @property
    def prefix(self) -> str:
        """How all our interfaces begin."""
        return f"jb{self.digest[:5]}"

    @property
    def bridge_prefix(self) -> str:
        return f"{self.prefix}n"

    @property
    def table(self) -> str:
        """Our tables in the packet filter."""
        return f"joblet_{self.digest[:16]}"

    @property
    def group(self) -> int:
        """The group of interfaces that are to go, deleted at one stroke; nobody else's."""
        return 0x4A000000 | int(self.digest[:6], 16)

    def bridge(self, lan: str, cidr: str) -> str:
        return f"{self.bridge_prefix}{hashlib.sha256(f'{lan} {cidr}'.encode()).hexdigest()[:6]}"

    def cable(self, address: IPv4Address) -> str:
        """The host's end of the cable to the job with this address."""
        return f"{self.prefix}{int(address):08x}"

    def address_of(self, cable: str) -> IPv4Address | None:
        """The address in a cable's name; None for any other interface."""
        number = cable.removeprefix(self.prefix)
        if len(number) != 8 or number == cable:
            return None
        try:
            return IPv4Address(int(number, 16))
        except ValueError:
            return None

    def alias(self, *words: str) -> str:
        """What ``ip link`` shows beside the name. The mark tells ours from another's with the same first letters; the end says
        to people where the daemon keeps its state."""
        return " ".join((self.mark, *words, f"({self.directory[-PLACE_CHARACTERS:]})"))[:ALIAS_BYTES]

    @property
    def mark(self) -> str:
        return f"joblet:{self.digest[:16]}"

    def words(self, alias: str | None) -> list[str] | None:
        """The words of one of our aliases; None if it is not ours."""
        mark, *words = (alias or "").split(" ")
        return words if mark == self.mark else None


def job_mac(address: IPv4Address) -> str:
    """A locally administered address (the second bit) for the job's end."""
    return _mac(0x02, 0x6A, address)


def cable_mac(address: IPv4Address) -> str:
    """For the host's end of the cable, or for a bridge with this address."""
    return _mac(0x02, 0x6B, address)


def _mac(first: int, second: int, address: IPv4Address) -> str:
    return ":".join(f"{byte:02x}" for byte in (first, second, *address.packed))
