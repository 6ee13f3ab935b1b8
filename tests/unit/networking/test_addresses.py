"""Names of interfaces, and which address is given out when."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from jobletd.executor.local.networking.errors import AddressesExhausted
from jobletd.executor.local.networking.lan import BLOCK, Addresses, Mode, lan_of
from jobletd.executor.local.networking.naming import ALIAS_BYTES, Naming, cable_mac, job_mac

NAMING = Naming("/var/lib/joblet")
IFNAMSIZ = 16


def addresses(cidr: str, taken: frozenset[str] = frozenset()) -> Addresses:
    lan = lan_of(NAMING, "network/a", IPv4Network(cidr), Mode.SHARED)
    return Addresses(lan, lambda address: str(address) in taken)


def test_every_name_fits_and_tells_what_it_is() -> None:
    for address in (IPv4Address("10.213.0.3"), IPv4Address("255.255.255.254"), IPv4Address("176.0.0.9")):
        name = NAMING.cable(address)
        assert len(name) < IFNAMSIZ and name.startswith(NAMING.prefix) and not name.startswith(NAMING.bridge_prefix)
        assert NAMING.address_of(name) == address
    bridge = NAMING.bridge("network/" + "x" * 63, "10.0.0.0/24")
    assert len(bridge) < IFNAMSIZ and bridge.startswith(NAMING.bridge_prefix) and NAMING.address_of(bridge) is None
    assert NAMING.address_of("eth0") is None


def test_a_mac_is_local_and_for_one_station_and_another_on_each_end() -> None:
    address = IPv4Address("10.213.0.3")
    assert job_mac(address) == "02:6a:0a:d5:00:03" and cable_mac(address) == "02:6b:0a:d5:00:03"


def test_an_alias_is_ours_alone_and_never_too_long() -> None:
    other = Naming("/var/lib/joblet2")
    alias = NAMING.alias("a-1", "a")
    assert NAMING.words(alias) == ["a-1", "a", "(/var/lib/joblet)"]
    assert other.words(alias) is None and NAMING.words(None) is None and NAMING.words("eth0 of somebody") is None
    assert len(Naming("/x" * 2000).alias("a" * 127, "b" * 63)) <= ALIAS_BYTES
    assert {other.prefix, other.table, other.group}.isdisjoint({NAMING.prefix, NAMING.table, NAMING.group})


def test_the_first_and_last_addresses_are_nobodys() -> None:
    pool = addresses("10.20.0.0/29")
    assert [str(pool.take()) for _ in range(5)] == [f"10.20.0.{number}" for number in range(2, 7)]
    with pytest.raises(AddressesExhausted, match=r"all 5 addresses of 10.20.0.0/29 are in use"):
        pool.take()


def test_an_address_that_was_given_back_comes_last() -> None:
    pool = addresses("10.20.0.0/29")
    first = pool.take()
    pool.give_back(first)
    assert first not in [pool.take() for _ in range(4)]
    assert pool.take() == first


def test_an_address_whose_interface_is_there_is_not_given_out() -> None:
    pool = addresses("10.20.0.0/29", frozenset({"10.20.0.2", "10.20.0.4"}))
    assert [str(pool.take()) for _ in range(3)] == ["10.20.0.3", "10.20.0.5", "10.20.0.6"]


def test_blocks_are_opened_one_by_one_as_they_fill() -> None:
    pool = addresses("10.20.0.0/16")
    opened = []
    for _ in range(BLOCK):
        pool.take()
        opened.append(len(pool.opened))
    assert (opened[0], opened[BLOCK // 2 - 1], opened[BLOCK // 2], opened[-1]) == (1, 1, 2, 2)
    assert set(pool.held) <= set(pool.known())


def test_a_large_network_gives_each_address_once() -> None:
    pool = addresses("10.20.0.0/22")
    assert len({pool.take() for _ in range(1021)}) == pool.lan.bound == 1021
    with pytest.raises(AddressesExhausted):
        pool.take()


def test_an_adopted_address_is_known_and_held() -> None:
    pool = addresses("10.20.0.0/16")
    pool.adopt(IPv4Address("10.20.9.9"))
    assert IPv4Address("10.20.9.9") in set(pool.known())
    assert IPv4Address("10.20.9.9") not in [pool.take() for _ in range(300)]
