"""Bridges and cables, by netlink. All of it blocks, and all of it is called in one thread alone (see ``host_networks``).

A cable is a veth pair: one end a port of the lan's bridge, the other the ``eth0`` of a network namespace made for one attempt.
The namespace belongs to the host's user namespace, so nothing that a job may be given gives it power there. Whoever
holds it keeps it alive: first our descriptor, then the job's processes. The cable goes with it, whatever else dies.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from joblet.crash_points import reached
from joblet.sandbox import syscalls
from joblet.sandbox.command import bring_loopback_up
from jobletd.executor.local.networking.errors import NetworkUnavailable
from jobletd.executor.local.networking.lan import Lan, Mode
from jobletd.executor.local.networking.naming import Naming, cable_mac, job_mac

SYSCTL = "/proc/sys/net"  # of the network namespace of the thread that looks
# Programs in a job need no capability for what they can do anywhere else: a server on port 80, ping. IPv6 is for ::1 alone.
INSIDE = {
    "ipv4/ip_unprivileged_port_start": "0",
    "ipv4/ping_group_range": "0 2147483647",
    "ipv4/conf/default/accept_redirects": "0",
    "ipv6/conf/default/disable_ipv6": "1",
}
# The host's side of a lan: IPv4 alone, forwarded, from where it can come from.
BRIDGE_SYSCTLS = {
    "ipv4/conf/{}/forwarding": "1",
    "ipv4/conf/{}/rp_filter": "1",
    "ipv4/conf/{}/send_redirects": "0",
    "ipv4/conf/{}/accept_redirects": "0",
    "ipv6/conf/{}/disable_ipv6": "1",
}
LATENCY_SECONDS = 0.1  # what a shaped packet waits at most; then it is lost, and TCP slows down
BURST_SECONDS = 0.02
MOST_BYTES = (1 << 32) - 1
BURST_BYTES_AT_LEAST = 16384


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """The most that a job may receive and send, in bytes a second; None: no limit."""

    in_bytes: int | None = None
    out_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Cable:
    """What connects one attempt."""

    address: IPv4Address
    attempt: str
    job: str


class Links:
    """The netlink sockets of the one thread that works on interfaces."""

    def __init__(self, naming: Naming) -> None:
        self._naming = naming
        self._host = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._route = IPRoute()

    def close(self) -> None:
        self._route.close()
        os.close(self._host)

    # --- bridges ------------------------------------------------------------------------------------------------------

    def make_bridge(self, lan: Lan) -> None:
        """The lan's bridge, up, with the gateway's address; it may be there already. Raises NetworkUnavailable, OSError."""
        try:
            with suppress_error(errno.EEXIST):
                # Its MAC address is set, or it would follow that of its ports, and jobs would lose their gateway.
                self._route.link(
                    "add", ifname=lan.bridge, kind="bridge", address=cable_mac(lan.gateway), br_mcast_snooping=0
                )
            index = socket.if_nametoindex(lan.bridge)
            write_sysctls({name.format(lan.bridge): value for name, value in BRIDGE_SYSCTLS.items()})
            alias = self._naming.alias(lan.name, str(lan.cidr), lan.mode.value)
            self._route.link("set", index=index, state="up", ifalias=alias)
            with suppress_error(errno.EEXIST):
                self._route.addr("add", index=index, address=str(lan.gateway), prefixlen=lan.cidr.prefixlen)
        except NetlinkError as error:
            raise unavailable(error, "bridges", lan.name) from error

    def remove_interfaces(self, names: Iterable[str]) -> None:
        """Delete these of ours at one stroke: one at a time, each would take the kernel a grace period of RCU."""
        found = False
        for name in names:
            with suppress(OSError), suppress_error(errno.ENODEV):  # it goes by itself as well
                self._route.link("set", index=socket.if_nametoindex(name), group=self._naming.group)
                found = True
        if found:
            with suppress_error(errno.ENODEV):
                self._route.link("del", index=0, group=self._naming.group)

    # --- cables -------------------------------------------------------------------------------------------------------

    def connect(self, lan: Lan, cable: Cable, bandwidth: Bandwidth) -> tuple[int, Bandwidth]:
        """A network namespace with ``eth0`` on the lan. Returns its descriptor: closed, and entered by nobody, all goes
        again; and the bandwidth as read back. Raises NetworkUnavailable, OSError."""
        in_bytes = out_bytes = None
        namespace, inside = self._make_namespace()
        try:
            self._plug_in(lan, cable, namespace)
            reached("network.cable-plugged")
            eth0 = self._index_within(namespace, "eth0")
            inside.link("set", index=eth0, state="up")
            inside.addr("add", index=eth0, address=str(cable.address), prefixlen=lan.cidr.prefixlen)
            if lan.mode.goes_out:
                inside.route("add", dst="default", gateway=str(lan.gateway), oif=eth0)
            if bandwidth.out_bytes is not None:
                out_bytes = shape(inside, eth0, bandwidth.out_bytes)
            if bandwidth.in_bytes is not None:
                outside = socket.if_nametoindex(self._naming.cable(cable.address))
                in_bytes = shape(self._route, outside, bandwidth.in_bytes)
        except BaseException as error:
            os.close(namespace)
            if isinstance(error, NetlinkError):
                raise unavailable(error, "virtual interfaces", lan.name) from error
            raise
        finally:
            inside.close()
        return namespace, Bandwidth(in_bytes, out_bytes)

    def _make_namespace(self) -> tuple[int, Any]:
        """A new network namespace: its descriptor, and a netlink socket in it."""
        syscalls.unshare_thread(syscalls.CLONE_NEWNET)
        try:
            write_sysctls(INSIDE)
            bring_loopback_up()
            inside = IPRoute()
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC), inside
        finally:
            syscalls.setns(self._host, syscalls.CLONE_NEWNET)

    def _index_within(self, namespace: int, name: str) -> int:
        syscalls.setns(namespace, syscalls.CLONE_NEWNET)
        try:
            return socket.if_nametoindex(name)
        finally:
            syscalls.setns(self._host, syscalls.CLONE_NEWNET)

    def _plug_in(self, lan: Lan, cable: Cable, namespace: int) -> None:
        name = self._naming.cable(cable.address)
        self._route.link(
            "add",
            ifname=name,
            kind="veth",
            address=cable_mac(cable.address),
            master=socket.if_nametoindex(lan.bridge),
            peer={"ifname": "eth0", "net_ns_fd": namespace, "address": job_mac(cable.address)},
        )
        write_sysctls({f"ipv6/conf/{name}/disable_ipv6": "1"})
        index = socket.if_nametoindex(name)
        if not lan.mode.jobs_see_each_other:
            self._route.brport("set", index=index, isolated=1)
        # Last: no frame passes before.
        self._route.link("set", index=index, state="up", ifalias=self._naming.alias(cable.attempt, cable.job))

    # --- what is there ------------------------------------------------------------------------------------------------

    def survey(self) -> tuple[list[Lan], list[Cable]]:
        """The lans and cables that an earlier daemon of this directory made."""
        lans: list[Lan] = []
        cables: list[Cable] = []
        for link in self._route.get_links():
            name = link.get_attr("IFLA_IFNAME")
            words = self._naming.words(link.get_attr("IFLA_IFALIAS"))
            if words is None or not name.startswith(self._naming.prefix):
                continue
            address = self._naming.address_of(name)
            if address is not None:
                cables.append(Cable(address, words[0], words[1]))
            else:
                lans.append(Lan(words[0], IPv4Network(words[1]), Mode(words[2]), name))
        return lans, cables

    def default_interfaces(self) -> list[str]:
        """Those by which the host reaches the world: of its default routes."""
        names = []
        for route in self._route.get_default_routes(family=socket.AF_INET):
            indexes = [route.get_attr("RTA_OIF"), *(hop.get("oif") for hop in route.get_attr("RTA_MULTIPATH") or ())]
            names += [socket.if_indextoname(index) for index in indexes if index]
        return sorted(set(names))


def shape(route: Any, index: int, bytes_per_second: int) -> int | None:
    """What leaves by this interface is held to the rate by a token bucket, tc-tbf(8). Returns the rate as the kernel has it.

    Raises NetworkUnavailable for one that the kernel's 32 bits do not hold.
    """
    if bytes_per_second > MOST_BYTES:
        what = f"more than {MOST_BYTES} bytes a second cannot be limited"
        raise NetworkUnavailable(what, where="spec.limits.network", todo="leave the limit out")
    burst = max(BURST_BYTES_AT_LEAST, int(bytes_per_second * BURST_SECONDS))
    route.tc(
        "add", "tbf", index, rate=f"{bytes_per_second * 8}bit", burst=burst, latency=f"{LATENCY_SECONDS * 1000:g}ms"
    )

    for qdisc in route.get_qdiscs(index):
        options = qdisc.get_attr("TCA_OPTIONS") if qdisc.get_attr("TCA_KIND") == "tbf" else None
        if options is not None:
            return int(options.get_attr("TCA_TBF_PARMS")["rate"])
    return None


def write_sysctls(values: dict[str, str]) -> None:
    """Below net, in the calling thread's network namespace. A host without IPv6 has none of its files."""
    for name, value in values.items():
        try:
            fd = os.open(f"{SYSCTL}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if name.startswith("ipv6/"):
                continue
            raise
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)


class suppress_error(suppress):  # noqa: N801  it is used as suppress is
    """Of netlink, with this errno."""

    def __init__(self, number: int) -> None:
        super().__init__(NetlinkError)
        self._number = number

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        return isinstance(error, NetlinkError) and error.code == self._number


def unavailable(error: NetlinkError, what: str, lan: str) -> NetworkUnavailable:
    """The kernel's answer in words."""
    if error.code == errno.EOPNOTSUPP:
        return NetworkUnavailable(f"this kernel has no {what}", where=lan, todo="load the modules bridge and veth")
    if error.code in (errno.EXFULL, errno.EBUSY):
        return NetworkUnavailable(
            "its bridge is full: a bridge has 1,023 ports", where=lan, todo="use several networks"
        )
    return NetworkUnavailable(f"the kernel refuses {what}: {os.strerror(error.code)}", where=lan)
