"""A lan: one bridge, its addresses, and what its jobs may do. Pure, but for the question whether an interface is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network

from jobletd.executor.local.networking.errors import AddressesExhausted
from jobletd.executor.local.networking.naming import Naming

BLOCK = 256  # addresses that the packet filter learns of at one time


class Mode(StrEnum):
    """What the jobs of a lan may do."""

    BRIDGE = "bridge"  # out; the host may connect to them; they don't see each other
    ISOLATED = "isolated"  # out; nobody connects to them, the host included
    SHARED = "shared"  # out; they see each other
    INTERNAL = "internal"  # they see each other alone

    @property
    def goes_out(self) -> bool:
        return self is not Mode.INTERNAL

    @property
    def jobs_see_each_other(self) -> bool:
        return self in (Mode.SHARED, Mode.INTERNAL)


@dataclass(frozen=True, slots=True)
class Lan:
    """name: ``bridge``, ``isolated``, or ``network/backend``."""

    name: str
    cidr: IPv4Network
    mode: Mode
    bridge: str

    @property
    def gateway(self) -> IPv4Address:
        """The host's own address in it: the first."""
        return self.cidr.network_address + 1

    @property
    def bound(self) -> int:
        """How many jobs there is room for: all but the network's, the gateway's and the broadcast address."""
        return self.cidr.num_addresses - 3


def lan_of(naming: Naming, name: str, cidr: IPv4Network, mode: Mode) -> Lan:
    return Lan(name, cidr, mode, naming.bridge(name, str(cidr)))


@dataclass(slots=True)
class Addresses:
    """Gives out a lan's addresses, the one that was free for the longest time first, within few blocks.

    opened: the blocks that the packet filter knows. Another one is opened when half of those are in use, so that an address
    rests a while before it is another job's: remote ends may still remember it.
    """

    lan: Lan
    in_use: Callable[[IPv4Address], bool]
    held: set[IPv4Address] = field(default_factory=set)
    opened: set[int] = field(default_factory=set)
    _last: int = 1

    def take(self) -> IPv4Address:
        """A free address, held from now on; its block may have to be opened first. Raises AddressesExhausted."""
        if 2 * len(self.held) >= len(self.opened) * BLOCK or not self.opened:
            self._open_another()
        for number in self._round():
            address = self.lan.cidr.network_address + number
            if address not in self.held and not self.in_use(address):
                self._last = number
                self.held.add(address)
                return address
        if self._open_another():
            return self.take()
        raise AddressesExhausted(
            f"all {self.lan.bound} addresses of {self.lan.cidr} are in use",
            where=self.lan.name,
            todo="wait for its jobs to end, or make the network larger",
        )

    def adopt(self, address: IPv4Address) -> None:
        """Note one that is in use since before we were there."""
        self.held.add(address)
        self.opened.add(self._block(address))

    def give_back(self, address: IPv4Address) -> None:
        self.held.discard(address)

    def known(self) -> Iterable[IPv4Address]:
        """Every address of the opened blocks."""
        for number in self._numbers():
            yield self.lan.cidr.network_address + number

    def _open_another(self) -> bool:
        last = (self.lan.cidr.num_addresses - 1) // BLOCK
        missing = next((block for block in range(last + 1) if block not in self.opened), None)
        if missing is None:
            return False
        self.opened.add(missing)
        return True

    def _numbers(self) -> list[int]:
        bound = self.lan.cidr.num_addresses - 1  # the last is for broadcasts
        return [
            number
            for block in sorted(self.opened)
            for number in range(max(2, block * BLOCK), min(bound, (block + 1) * BLOCK))
        ]

    def _round(self) -> list[int]:
        """The opened numbers, from the one after the last that was given out."""
        numbers = self._numbers()
        later = [number for number in numbers if number > self._last]
        return later + [number for number in numbers if number <= self._last]

    def _block(self, address: IPv4Address) -> int:
        return (int(address) - int(self.lan.cidr.network_address)) // BLOCK
