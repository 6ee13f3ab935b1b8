"""The packet filter's rules as text, and the facts of the host that go into them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from jobletd.executor.local.networking.host_facts import nameservers, routes
from jobletd.executor.local.networking.hosts_file import HEAD, hosts_text, write_in_place
from jobletd.executor.local.networking.lan import Mode, lan_of
from jobletd.executor.local.networking.naming import Naming
from jobletd.executor.local.networking.ruleset import Policy, rules

NAMING = Naming("/var/lib/joblet")
LANS = [lan_of(NAMING, mode.value, IPv4Network(f"10.{number}.0.0/24"), mode) for number, mode in enumerate(Mode, 1)]
BRIDGE, ISOLATED, SHARED, INTERNAL = LANS


def elements(text: str, name: str) -> set[str]:
    """What stands in a set."""
    line = next(line for line in text.splitlines() if f"set {name} " in line)
    inner = line.partition("elements = {")[2].partition("}")[0]
    return {one.strip().strip('"') for one in inner.split(",") if one.strip()}


def test_each_lan_is_in_the_sets_of_its_mode() -> None:
    text = rules(NAMING, LANS, [], Policy())
    assert elements(text, "outward") == {BRIDGE.bridge, ISOLATED.bridge, SHARED.bridge}
    assert elements(text, "sources") == {"10.1.0.0/24", "10.2.0.0/24", "10.3.0.0/24"}
    assert elements(text, "isolated") == {ISOLATED.bridge}
    assert {one.split('"')[0] for one in elements(text, "shared")} == {SHARED.bridge, INTERNAL.bridge}


def test_a_member_is_a_cable_with_its_own_addresses() -> None:
    text = rules(NAMING, LANS, [IPv4Address("10.1.0.2")], Policy())
    assert f'"{NAMING.prefix}0a010002" . 02:6a:0a:01:00:02 . 10.1.0.2' in text


def test_what_the_policy_names_is_in_its_set() -> None:
    policy = Policy(
        denied=["169.254.0.0/16"], host_ports=["tcp . 80"], nameservers=[IPv4Address("9.9.9.9")], borrowed=["eth0"]
    )
    text = rules(NAMING, LANS, [], policy)
    assert [elements(text, name) for name in ("denied", "host_ports", "nameservers", "borrowed")] == [
        {"169.254.0.0/16"},
        {"tcp . 80"},
        {"9.9.9.9"},
        {"eth0"},
    ]


def test_what_has_no_way_out_is_refused_before_anything_is_allowed() -> None:
    chain = rules(NAMING, LANS, [], Policy()).partition("chain outward_bound {")[2].partition("}\n    chain")[0]
    assert chain.strip().splitlines()[0] == "iifname != @outward reject with icmpx admin-prohibited"


def test_routes_are_read_and_ours_and_the_default_left_out() -> None:
    text = (
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
        "eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
        f"{BRIDGE.bridge}\t0000010A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
    )
    assert routes(NAMING.prefix, text) == [(IPv4Network("192.0.2.0/24"), "eth0")]


def test_nameservers_on_loopback_are_replaced_by_those_behind_them(tmp_path: Path) -> None:
    stub, real = tmp_path / "resolv.conf", tmp_path / "real"
    stub.write_text("nameserver 127.0.0.53\nsearch example.org\n")
    assert nameservers(stub, real) == ("", [])
    real.write_text("# of systemd\nnameserver fd00::1\nnameserver 192.0.2.53\nsearch example.org\n")
    assert nameservers(stub, real) == ("nameserver 192.0.2.53\nsearch example.org\n", [IPv4Address("192.0.2.53")])
    stub.write_text("nameserver 192.0.2.1\nnonsense\nnameserver\noptions edns0\n")
    assert nameservers(stub, real) == ("nameserver 192.0.2.1\noptions edns0\n", [IPv4Address("192.0.2.1")])


def test_a_hosts_file_keeps_its_inode_and_never_has_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    long = hosts_text("backend", [(IPv4Address("10.0.0.3"), "web"), (IPv4Address("10.0.0.2"), "db")])
    assert long == HEAD + "10.0.0.2\tdb db.backend\n10.0.0.3\tweb web.backend\n"
    write_in_place(str(path), long)
    inode = path.stat().st_ino
    write_in_place(str(path), hosts_text("backend", []))
    assert (path.read_text(), path.stat().st_ino, path.stat().st_mode & 0o777) == (HEAD, inode, 0o644)
