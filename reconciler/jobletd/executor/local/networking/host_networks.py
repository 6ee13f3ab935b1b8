"""All lans of this host at work: bridges and filter made when they are first needed, addresses given out and taken back.

What interfaces there are is read from the kernel by their names; what is kept here is what an attach needs to be quick. Netlink
blocks, so one thread of our own does it, which is also the only one that visits other network namespaces.
"""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import structlog

from joblet.crash_points import reached
from joblet.errors import JobletError
from joblet.manifest import Network
from jobletd.executor.local.networking import filter as packet_filter
from jobletd.executor.local.networking import host_facts
from jobletd.executor.local.networking.errors import NetworkUnavailable
from jobletd.executor.local.networking.forwarding import Forwarding
from jobletd.executor.local.networking.hosts_file import hosts_text, write_in_place
from jobletd.executor.local.networking.lan import Addresses, Lan, Mode, lan_of
from jobletd.executor.local.networking.naming import Naming
from jobletd.executor.local.networking.ruleset import Policy, removal, rules

if TYPE_CHECKING:  # pyroute2 costs 80 ms and some MB: loaded with the first network
    from jobletd.executor.local.networking.links import Bandwidth, Cable, Links

T = TypeVar("T")
GUARD_SECONDS = 5.0
DIES_WITHIN_SECONDS = 0.2  # in which the kernel takes an ended job's cable away by itself, mostly
log = structlog.get_logger("networks")


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """From the configuration. directory: for files that jobs see, on a tmpfs. pool: halved into bridge and isolated.
    host_ports: as in ``tcp . 53``."""

    state_directory: str
    directory: Path
    pool: IPv4Network
    denied: tuple[str, ...]
    host_ports: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Remains:
    """Interfaces and tables of the packet filter, by name."""

    interfaces: tuple[str, ...]
    tables: tuple[str, ...]


class HostNetworks:
    """The lans of one daemon."""

    def __init__(self, settings: NetworkSettings) -> None:
        self.settings = settings
        self.naming = Naming(settings.state_directory)
        self._forwarding = Forwarding(settings.directory / "forwarding")
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="joblet-net")
        self._links: Links | None = None
        self._lans: dict[str, Lan] = {}  # by bridge: those that stand
        self._addresses: dict[str, Addresses] = {}  # by bridge
        self._cables: dict[str, tuple[Lan, Cable]] = {}  # by attempt
        self._going: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()
        self._loaded: str | None = None  # the rules that hold
        self._have_rules = settings.directory / "rules"  # there while ours may hold, whoever loaded them

    # --- start and end ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take over what an earlier daemon left, and the jobs on it. Raises OSError."""
        if not self._interfaces():
            # Nothing is there to be guarded: the rules of a daemon that was killed while its last network went are of no use.
            async with self._changing:
                await self._clear_rules()
            return
        lans, cables = await self._in_thread(lambda links: links.survey())
        for lan in lans:
            self._note(lan)
        for cable in cables:
            for lan in [lan for lan in lans if cable.address in lan.cidr]:
                self._cables[cable.attempt] = (lan, cable)
                self._addresses[lan.bridge].adopt(cable.address)
        async with self._changing:
            try:
                await self._load_rules()
            except NetworkUnavailable as error:  # those of the earlier daemon still hold, and most jobs need no network
                log.error("rules not renewed", error=str(error))

    async def close(self) -> None:
        """Leave nothing behind if no job is on any network; else all, for the next daemon."""
        await asyncio.gather(*self._going)
        if not any(map(self._is_there, self._names_of_cables())):
            async with self._changing:
                if self._lans:
                    await self._in_thread(lambda links: links.remove_interfaces(self._interfaces()))
                    self._lans.clear()
                await self._clear_rules()
        if self._links is not None:
            await self._in_thread(lambda links: links.close())
        self._thread.shutdown(wait=False)

    async def remains(self) -> Remains:
        """What is there of ours, whoever made it."""
        interfaces = tuple(name for name in self._interfaces() if self._is_ours(name))
        try:
            holds = await packet_filter.holds(self.naming.table)
        except NetworkUnavailable:  # without nft we have made none
            holds = False
        return Remains(interfaces, (self.naming.table,) if holds else ())

    def _is_ours(self, name: str) -> bool:
        """By its alias; it has none yet if whoever made it died over that."""
        try:
            alias = Path(f"/sys/class/net/{name}/ifalias").read_text().strip()
        except OSError:
            return False  # it has gone
        return not alias or self.naming.words(alias) is not None

    async def remove_all(self) -> None:
        """Whoever is still on it. Raises NetworkUnavailable, OSError."""
        remains = await self.remains()
        if remains.interfaces:
            await self._in_thread(lambda links: links.remove_interfaces(remains.interfaces))
        self._forwarding.give_back()
        if remains.tables:
            await packet_filter.load(removal(self.naming))
        self._have_rules.unlink(missing_ok=True)

    async def guard(self) -> None:
        """Until cancelled: load the rules anew when somebody else took them away, as a reload of the host's own rules does."""
        while True:
            await asyncio.sleep(GUARD_SECONDS)
            try:
                async with self._changing:
                    if self._lans and (self._loaded is None or not await packet_filter.holds(self.naming.table)):
                        self._loaded = None
                        await self._load_rules()
                        log.warning("our rules did not hold and do again", table=self.naming.table)
            except (NetworkUnavailable, OSError) as error:
                log.error("jobs' networks are without rules", error=str(error))

    # --- lans ---------------------------------------------------------------------------------------------------------

    def lan_named(self, network: str) -> Lan:
        """One that every host has, by its name."""
        bridge, isolated = self.settings.pool.subnets(prefixlen_diff=1)
        if network == Network.BRIDGE:
            return lan_of(self.naming, "bridge", bridge, Mode.BRIDGE)
        return lan_of(self.naming, "isolated", isolated, Mode.ISOLATED)

    async def ensure(self, lan: Lan) -> None:
        """Make it stand: bridge, rules, forwarding. Raises NetworkUnavailable, OSError."""
        if self._lans.get(lan.bridge) == lan and self._is_there(lan.bridge):
            return
        async with self._changing:
            former = self._lans.get(lan.bridge)
            if former is None and (taken := self.overlapping_route(lan.cidr)):
                raise NetworkUnavailable(
                    f"{lan.cidr} overlaps {taken[0]}, which the host reaches by {taken[1]}",
                    where=lan.name,
                    todo="set network.pool to addresses that are free"
                    if lan.cidr.subnet_of(self.settings.pool)
                    else "choose another cidr",
                )
            self._note(lan)
            try:
                await self._load_rules()  # before there is anything that they protect from
                await self._in_thread(lambda links: links.make_bridge(lan))
                reached("network.bridge-made")
                await self._open_the_way_out()
            except BaseException:
                if former is None:
                    await self._take_back(lan)
                else:
                    self._lans[lan.bridge] = former
                raise

    async def drop(self, lan: Lan) -> None:
        """Take it away; no job is on it."""
        async with self._changing:
            await self._take_down(lan)
        shutil.rmtree(self._hosts_path(lan).parent, ignore_errors=True)

    def overlapping_route(self, cidr: IPv4Network) -> tuple[IPv4Network, str] | None:
        """A route of the host that leads elsewhere, with its interface."""
        routes = host_facts.routes(not_of=self.naming.prefix)
        return next(((network, name) for network, name in routes if network.overlaps(cidr)), None)

    def jobs_on(self, lan: Lan) -> int:
        return sum(1 for other, _ in self._cables.values() if other.bridge == lan.bridge)

    # --- attempts -----------------------------------------------------------------------------------------------------

    async def connect(self, lan: Lan, attempt: str, job: str, bandwidth: Bandwidth) -> tuple[int, Bandwidth]:
        """A place on the lan. Returns the descriptor of its network namespace, and the bandwidth as read back. Raises
        JobletError, OSError."""
        from jobletd.executor.local.networking.links import Cable

        await self.ensure(lan)
        address = await self._take_address(lan)
        cable = Cable(address, attempt, job)
        try:
            namespace, held = await self._in_thread(lambda links: links.connect(lan, cable, bandwidth))
        except BaseException:
            if addresses := self._addresses.get(lan.bridge):
                addresses.give_back(address)
            raise
        self._cables[attempt] = (lan, cable)
        try:
            self._write_hosts(lan)
        except BaseException:
            os.close(namespace)  # ``disconnect`` gives the rest back
            raise
        reached("network.attached")
        return namespace, held

    def disconnect(self, attempt: str) -> None:
        """Give back what the attempt had."""
        if (found := self._cables.pop(attempt, None)) is None:
            return
        lan, cable = found
        task = asyncio.create_task(self._see_off(lan, cable))
        self._going.add(task)
        task.add_done_callback(self._going.discard)
        self._write_hosts(lan)

    async def keep_only(self, attempts: frozenset[str]) -> None:
        """Free what others had, and lans of an earlier configuration that nobody is on."""
        for attempt in self._cables.keys() - attempts:
            self.disconnect(attempt)
        await asyncio.gather(*self._going)
        wanted = {self.lan_named(Network.BRIDGE), self.lan_named(Network.ISOLATED)}
        for lan in [lan for lan in self._lans.values() if not lan.name.startswith("network/") and lan not in wanted]:
            if not self.jobs_on(lan):
                await self.drop(lan)

    def etc(self, lan: Lan) -> dict[str, str]:
        """What stands in a job's /etc on this lan: file names, and where they are on the host."""
        text, _ = host_facts.nameservers()
        path = self.settings.directory / ("resolv.conf" if lan.mode.goes_out else "none/resolv.conf")
        self._write_if_new(path, text if lan.mode.goes_out else "")
        return {
            "resolv.conf": str(path),
            **({"hosts": str(self._hosts_path(lan))} if lan.mode.jobs_see_each_other else {}),
        }

    # --- within -------------------------------------------------------------------------------------------------------

    async def _take_down(self, lan: Lan) -> None:
        """Its bridge, and the rules that are about it."""
        self._lans.pop(lan.bridge, None)
        self._addresses.pop(lan.bridge, None)
        if self._is_there(lan.bridge):
            await self._in_thread(lambda links: links.remove_interfaces([lan.bridge]))
        reached("network.bridge-removed")
        if not self._lans:
            await self._remove_rules()
        elif self._loaded is not None:
            await self._load_rules()

    async def _take_back(self, lan: Lan) -> None:
        """What stands of one that could not be made. The reason is told by whoever wanted it."""
        try:
            await self._take_down(lan)
        except (JobletError, OSError) as error:
            log.warning("network not taken back", network=lan.name, error=str(error))

    async def _in_thread(self, call: Callable[[Links], T]) -> T:
        """In the one thread that has the netlink sockets, to its end even if who waits goes away."""
        loop = asyncio.get_running_loop()
        return await asyncio.shield(loop.run_in_executor(self._thread, functools.partial(self._with_links, call)))

    def _with_links(self, call: Callable[[Links], T]) -> T:
        if self._links is None:
            from jobletd.executor.local.networking.links import Links

            self._links = Links(self.naming)
        return call(self._links)

    async def _take_address(self, lan: Lan) -> IPv4Address:
        async with self._changing:
            addresses = self._addresses.get(lan.bridge)
            if addresses is None:  # made for another job, which failed over it
                raise NetworkUnavailable("could not be made just now", where=lan.name, todo="the daemon's log says why")
            opened = len(addresses.opened)
            address = addresses.take()
            try:
                if len(addresses.opened) > opened:
                    await self._load_rules()
                if lan.mode.goes_out and not self._forwarding.borrowed:
                    await self._open_the_way_out()  # the host may have got its default route since
            except BaseException:
                addresses.give_back(address)
                raise
            return address

    async def _open_the_way_out(self) -> None:
        """Answers from outside are forwarded to jobs."""
        if self._forwarding.needed() and self._forwarding.switch_on(
            await self._in_thread(lambda links: links.default_interfaces())
        ):
            log.info("forwarding switched on for answers to jobs", interfaces=sorted(self._forwarding.borrowed))
            await self._load_rules()

    async def _load_rules(self) -> None:
        """Make the packet filter say what is true now."""
        _, servers = host_facts.nameservers()
        policy = Policy(
            denied=self.settings.denied,
            host_ports=self.settings.host_ports,
            nameservers=servers,
            borrowed=sorted(self._forwarding.borrowed),
        )
        members = [address for addresses in self._addresses.values() for address in addresses.known()]
        text = rules(self.naming, list(self._lans.values()), members, policy)
        if text != self._loaded:
            self._have_rules.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
            are_first = not self._have_rules.exists()
            self._have_rules.touch()
            try:
                await packet_filter.load(text)
            except NetworkUnavailable:  # it loads all or nothing
                if are_first:
                    self._have_rules.unlink()
                raise
            reached("network.rules-loaded")
            self._loaded = text

    async def _remove_rules(self) -> None:
        """If there are any. First what they kept from being a way through the host."""
        self._forwarding.give_back()
        if self._loaded is not None or self._have_rules.exists():
            await packet_filter.load(removal(self.naming))
            self._loaded = None
            self._have_rules.unlink(missing_ok=True)

    async def _clear_rules(self) -> None:
        """At the beginning and the end: rules that cannot be removed are told of, and left to the next daemon."""
        try:
            await self._remove_rules()
        except NetworkUnavailable as error:
            log.error("rules not removed", error=str(error))

    async def _see_off(self, lan: Lan, cable: Cable) -> None:
        """Until its interface is gone, and the address is free."""
        name = self.naming.cable(cable.address)
        try:
            if self._is_there(name):
                await asyncio.sleep(
                    DIES_WITHIN_SECONDS
                )  # several that end together are deleted together, by the kernel
            if self._is_there(name):
                await self._in_thread(lambda links: links.remove_interfaces([name]))
        except (JobletError, OSError) as error:
            log.warning("interface not removed", interface=name, error=str(error))
        reached("network.detached")
        if addresses := self._addresses.get(lan.bridge):
            addresses.give_back(cable.address)  # as long as its interface is there, it is not given out

    def _note(self, lan: Lan) -> None:
        self._lans[lan.bridge] = lan
        if lan.bridge not in self._addresses:
            self._addresses[lan.bridge] = Addresses(lan, lambda address: self._is_there(self.naming.cable(address)))

    def _write_hosts(self, lan: Lan) -> None:
        if lan.mode.jobs_see_each_other:
            path = self._hosts_path(lan)
            path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
            entries = [
                (cable.address, cable.job) for other, cable in self._cables.values() if other.bridge == lan.bridge
            ]
            write_in_place(str(path), hosts_text(lan.name.rpartition("/")[2], entries))

    def _hosts_path(self, lan: Lan) -> Path:
        return self.settings.directory / "lans" / lan.name.rpartition("/")[2] / "hosts"

    def _write_if_new(self, path: Path, text: str) -> None:
        with suppress(FileNotFoundError):
            if path.read_text() == text:
                return
        path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        write_in_place(str(path), text)

    def _names_of_cables(self) -> list[str]:
        return [self.naming.cable(cable.address) for _, cable in self._cables.values()]

    def _interfaces(self) -> list[str]:
        """Ours that are there, or another's with the same five digits: the survey tells."""
        return [name for _, name in socket.if_nameindex() if name.startswith(self.naming.prefix)]

    def _is_there(self, name: str) -> bool:
        with suppress(OSError):
            return bool(socket.if_nametoindex(name))
        return False
