"""What the host's own network looks like, as far as jobs' networks must fit into it."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv4Network, ip_address
from pathlib import Path

ROUTES = Path("/proc/net/route")
RESOLV_CONF = Path("/etc/resolv.conf")
SYSTEMD_RESOLV_CONF = Path("/run/systemd/resolve/resolv.conf")  # the servers behind its stub on the loopback device


def routes(not_of: str, text: str | None = None) -> list[tuple[IPv4Network, str]]:
    """The host's IPv4 routes but the default ones, with their interfaces; not_of: how the names of those to leave out begin."""
    found = []
    for line in (ROUTES.read_text() if text is None else text).splitlines()[1:]:
        name, destination, _, _, _, _, _, mask, *_ = line.split()
        number, bits = (socket.ntohl(int(word, 16)) for word in (destination, mask))
        network = IPv4Network((number, bits.bit_count()))
        if network.prefixlen and not name.startswith(not_of):
            found.append((network, name))
    return found


def nameservers(
    resolv_conf: Path = RESOLV_CONF, behind_stub: Path = SYSTEMD_RESOLV_CONF
) -> tuple[str, list[IPv4Address]]:
    """A resolv.conf for jobs, and the servers in it: the host's, less those on its loopback device, which no job reaches."""
    for path in (resolv_conf, behind_stub):
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError:
            continue
        servers = [address for line in lines if (address := _server(line)) is not None]
        if servers:
            others = [line for line in lines if line.split()[:1] in (["search"], ["domain"], ["options"])]
            return "".join(f"{line}\n" for line in (*(f"nameserver {one}" for one in servers), *others)), servers
    return "", []


def _server(line: str) -> IPv4Address | None:
    words = line.split()
    if len(words) < 2 or words[0] != "nameserver":
        return None
    try:
        address = ip_address(words[1])
    except ValueError:
        return None
    return address if isinstance(address, IPv4Address) and not address.is_loopback else None
