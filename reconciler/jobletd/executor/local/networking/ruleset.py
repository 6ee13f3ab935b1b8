"""The packet filter's rules for the lans of one daemon, as text for nft(8). Pure.

Two tables. In the family ``bridge`` stands who may say that he is who: a frame comes in from a job only with the MAC and the IPv4
address that were given to it, and only IPv4 and ARP at all. In the family ``inet`` stands where jobs may go: never to the
host's own ports, never to another lan, out if the lan has a way out. What is not allowed is refused, not dropped, so
that a program hears of it at once. Everything is keyed by our interfaces' names; other traffic passes untouched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from jobletd.executor.local.networking.lan import Lan, Mode
from jobletd.executor.local.networking.naming import Naming, job_mac


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for all lans. denied: networks that no job reaches. host_ports: as in ``tcp . 53``, open to jobs on the host.
    nameservers: may be asked even in a denied network. borrowed: interfaces that forward only for our sake."""

    denied: Sequence[str] = ()
    host_ports: Sequence[str] = ()
    nameservers: Sequence[IPv4Address] = ()
    borrowed: Sequence[str] = ()


def rules(naming: Naming, lans: Sequence[Lan], members: Iterable[IPv4Address], policy: Policy) -> str:
    """All rules anew, in one transaction. members: the addresses that jobs may have."""
    return "\n".join(
        (
            removal(naming),
            _bridge_table(naming, members),
            _inet_table(naming, lans, policy),
        )
    )


def removal(naming: Naming) -> str:
    """Take our tables away, whether they are there or not."""
    lines = [f"table {family} {naming.table}\ndelete table {family} {naming.table}" for family in ("bridge", "inet")]
    return "\n".join(lines) + "\n"


def _bridge_table(naming: Naming, members: Iterable[IPv4Address]) -> str:
    known = [f'"{naming.cable(address)}" . {job_mac(address)} . {address}' for address in members]
    return f"""\
table bridge {naming.table} {{
    set members {{
        typeof iifname . ether saddr . ip saddr
        {_elements(known)}
    }}
    chain from_jobs {{
        type filter hook prerouting priority -300; policy accept;
        iifname != "{naming.prefix}*" accept
        ether type ip iifname . ether saddr . ip saddr @members accept
        arp htype 1 arp ptype ip arp hlen 6 arp plen 4 iifname . ether saddr . arp saddr ip @members \
iifname . arp saddr ether . arp saddr ip @members accept
        drop
    }}
}}
"""


def _inet_table(naming: Naming, lans: Sequence[Lan], policy: Policy) -> str:
    ours = f'"{naming.bridge_prefix}*"'
    outward = [lan for lan in lans if lan.mode.goes_out]
    shared = [lan.bridge for lan in lans if lan.mode.jobs_see_each_other]
    isolated = [lan.bridge for lan in lans if lan.mode is Mode.ISOLATED]
    return f"""\
table inet {naming.table} {{
    set outward {{ type ifname; {_elements(f'"{lan.bridge}"' for lan in outward)} }}
    set shared {{ type ifname . ifname; {_elements(f'"{bridge}" . "{bridge}"' for bridge in shared)} }}
    set isolated {{ type ifname; {_elements(f'"{bridge}"' for bridge in isolated)} }}
    set sources {{ type ipv4_addr; flags interval; {_elements(str(lan.cidr) for lan in outward)} }}
    set denied {{ type ipv4_addr; flags interval; auto-merge; {_elements(policy.denied)} }}
    set nameservers {{ type ipv4_addr; {_elements(map(str, policy.nameservers))} }}
    set host_ports {{ type inet_proto . inet_service; {_elements(policy.host_ports)} }}
    set borrowed {{ type ifname; {_elements(f'"{name}"' for name in policy.borrowed)} }}

    chain to_host {{
        type filter hook input priority filter - 10; policy accept;
        iifname != {ours} accept
        ct state established,related accept
        meta l4proto . th dport @host_ports accept
        reject with icmpx admin-prohibited
    }}
    chain through_host {{
        type filter hook forward priority filter - 10; policy accept;
        iifname . oifname @shared accept
        oifname {ours} ct state established,related accept
        oifname {ours} reject with icmpx admin-prohibited
        iifname {ours} goto outward_bound
        iifname @borrowed drop
    }}
    chain outward_bound {{
        iifname != @outward reject with icmpx admin-prohibited
        ip daddr @nameservers meta l4proto {{ tcp, udp }} th dport 53 accept
        ip daddr @denied reject with icmpx admin-prohibited
        meta nfproto ipv4 accept
        reject with icmpx admin-prohibited
    }}
    chain from_host {{
        type filter hook output priority filter - 10; policy accept;
        oifname @isolated ct state new reject with icmpx admin-prohibited
    }}
    chain translated {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr @sources oifname != {ours} masquerade
    }}
}}
"""


def _elements(items: Iterable[str]) -> str:
    listed = ", ".join(items)
    return f"elements = {{ {listed} }};" if listed else ""
