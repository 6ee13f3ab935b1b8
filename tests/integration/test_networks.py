"""Networks of jobs: where a job gets to and where not, who sees whom, and who may speak in whose name."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from joblet.cgroup import readable_size
from tests.integration.host import Host, eventually, job_host
from tests.integration.network_stage import BEHIND, HOST, METADATA, WORLD, Stage, stage, within
from tests.timing import PATIENCE

pytestmark = pytest.mark.native_only(reason="the guest's kernel has no nf_tables")

PYTHON = ["/usr/bin/python3", "-c"]
REFUSED, UNREACHABLE = "ConnectionRefusedError 111", "OSError 113"
ASK = """
import socket, sys
for target in sys.argv[1:]:
    kind, address, port = target.split(":")
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    s.settimeout(5)
    try:
        s.connect((address, int(port)))
        if kind == "udp":
            s.send(b"?")
        print(target, s.recv(100).decode().strip())
    except OSError as error:
        print(target, type(error).__name__, error.errno)
"""
SERVE = """
import socket, sys
server = socket.create_server(("0.0.0.0", 80))
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
own.connect(("10.213.0.1", 9))
print(own.getsockname()[0], flush=True)
while True:
    connection, peer = server.accept()
    print(peer[0], file=sys.stderr, flush=True)
    connection.sendall(b"hello " + peer[0].encode() + b"\\n")
    connection.close()
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Stage]:
    with stage() as there:
        yield there


@pytest.fixture(scope="module")
def host(place: Stage) -> Iterator[Host]:
    def allow(config: dict[str, Any]) -> None:
        config["isolation"]["allowedCapabilities"] = ["NET_RAW", "NET_ADMIN"]

    with job_host(within=place.within, configure=allow) as host:
        yield host


@pytest.fixture
def backend(host: Host) -> Iterator[str]:
    """A declared network."""
    host.apply(network("backend", "10.77.1.0/24"))
    yield "backend"
    shown = json.loads(host.rnx("get", "network/backend", "-o", "json").out)
    for user in shown["status"]["usedBy"]:
        host.rnx("delete", user)
    eventually(lambda: host.rnx("delete", "network/backend", "--ignore-not-found").status == 0, what="its deletion")


def network(name: str, cidr: str, more: str = "") -> str:
    return f"apiVersion: joblet/v1\nkind: Network\nmetadata: {{name: {name}}}\nspec: {{cidr: {cidr}{more}}}\n"


def job(name: str, network: str, command: list[str], limits: str = "", **isolation: object) -> str:
    spec = {
        "command": command,
        "isolation": {"network": network, **isolation},
        **({"limits": json.loads(limits)} if limits else {}),
    }
    return json.dumps({"apiVersion": "joblet/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec})


def ask(host: Host, name: str, network: str, *targets: str) -> dict[str, str]:
    """What a job on that network hears from each target."""
    host.apply(job(name, network, [*PYTHON, ASK, *targets]))
    run = host.finished(name)
    try:
        text = host.log(name, stream="").decode()
    except grpc.RpcError as error:
        raise AssertionError(f"{error}\n{host.log_tail()}") from error
    assert run.phase == "COMPLETED", f"{run.message}\n{text}\n{host.log_tail()}"
    return dict(line.split(" ", 1) for line in text.splitlines())


def serving(host: Host, name: str, network: str) -> str:
    """A job that answers on port 80, once it does. Returns its address."""
    host.apply(job(name, network, [*PYTHON, SERVE]))
    host.running(name)
    return eventually(lambda: host.log(name, follow=False).decode().strip(), what=f"{name} to serve")


def inside(host: Host, name: str) -> str:
    """The network namespace of a running job."""
    ours = Path("/proc/self/ns/net").readlink()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            its = (
                f"/job-{name}-" in (process / "cgroup").read_text()
                and host.root.name in (process / "cgroup").read_text()
            )
            if its and (process / "ns/net").readlink() not in (ours, Path(host.within[1].partition("=")[2]).readlink()):
                return str(process / "ns/net")
        except OSError:
            continue
    raise AssertionError(f"{name} has no process in a network of its own")


# --- out ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["bridge", "isolated"])
def test_a_job_reaches_the_world_under_the_hosts_address(host: Host, place: Stage, network: str) -> None:
    near, far = place.serve(place.world, WORLD), place.serve(place.world, BEHIND)
    targets = [
        f"{kind}:{where}:{server.port}" for kind in ("tcp", "udp") for where, server in ((WORLD, near), (BEHIND, far))
    ]
    assert ask(host, f"out-{network}", network, *targets) == dict.fromkeys(targets, HOST)


def test_a_declared_network_has_a_way_out_unless_it_is_internal(host: Host, place: Stage, backend: str) -> None:
    server = place.serve(place.world, WORLD)
    target = f"tcp:{WORLD}:{server.port}"
    assert ask(host, "out-of-backend", backend, target) == {target: HOST}
    host.apply(network("closed", "10.77.2.0/24", ", internal: true"))
    assert ask(host, "out-of-closed", "closed", target) == {target: "OSError 101"}  # ENETUNREACH: there is no route


def test_the_host_forwards_for_nobody_else(host: Host, place: Stage) -> None:
    server = place.serve(place.world, WORLD)
    target = f"tcp:{WORLD}:{server.port}"
    assert ask(host, "makes-it-forward", "bridge", target) == {target: HOST}
    settings = "/proc/sys/net/ipv4/conf/{}/forwarding"
    assert [place.host.call(Path(settings.format(name)).read_text) for name in ("up0", "all")] == ["1\n", "0\n"]
    assert re.search(r'set borrowed \{\s+type ifname\s+elements = \{ "up0" \}', place.ruleset())


# --- not to the host, not to what clouds keep at link-local addresses --------------------------------------------------


@pytest.mark.parametrize("network", ["bridge", "isolated", "backend"])
def test_a_job_reaches_no_port_of_the_host_at_any_of_its_addresses(
    host: Host, place: Stage, backend: str, network: str
) -> None:
    everywhere = place.serve(place.host, "0.0.0.0")
    loopback = place.serve(place.host, "127.0.0.1")
    api = int((host.root / "run/port").read_text())
    gateway = {"bridge": "10.213.0.1", "isolated": "10.213.128.1", "backend": "10.77.1.1"}[network]
    at_host = [
        f"{kind}:{address}:{everywhere.port}" for kind in ("tcp", "udp") for address in (HOST, gateway, "10.213.0.1")
    ]
    own = [f"tcp:127.0.0.1:{port}" for port in (everywhere.port, loopback.port, api)]
    heard = ask(host, f"host-from-{network}", network, *at_host, f"tcp:{gateway}:{api}", *own)
    assert heard == dict.fromkeys([*at_host, f"tcp:{gateway}:{api}"], UNREACHABLE) | dict.fromkeys(own, REFUSED)
    assert everywhere.seen == loopback.seen == []


@pytest.mark.parametrize("network", ["bridge", "isolated"])
def test_a_job_reaches_no_metadata_service(host: Host, place: Stage, network: str) -> None:
    metadata = place.serve(place.world, METADATA)
    target = f"tcp:{METADATA}:{metadata.port}"
    assert place.host.call(lambda: socket.create_connection((METADATA, metadata.port), 5 * PATIENCE).close()) is None
    assert ask(host, f"metadata-{network}", network, target) == {target: UNREACHABLE}
    assert eventually(lambda: metadata.seen) == [HOST]


def test_a_job_has_no_ipv6_but_loopback(host: Host) -> None:
    host.apply(job("six", "bridge", ["/bin/cat", "/proc/net/if_inet6"]))
    assert host.finished("six").phase == "COMPLETED"
    assert [line.split()[-1] for line in host.log("six").decode().splitlines()] == ["lo"]


# --- who sees whom ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["bridge", "isolated"])
def test_a_job_does_not_see_another(host: Host, place: Stage, backend: str, network: str) -> None:
    same, other = serving(host, f"same-{network}", network), serving(host, f"beside-{network}", backend)
    targets = [f"tcp:{same}:80", f"tcp:{other}:80", f"udp:{same}:80"]
    heard = ask(host, f"peeks-{network}", network, *targets)
    assert heard[f"tcp:{other}:80"] == UNREACHABLE
    assert heard[f"tcp:{same}:80"] in (UNREACHABLE, "TimeoutError None")
    assert heard[f"udp:{same}:80"] in (UNREACHABLE, "TimeoutError None")
    assert host.log(f"same-{network}", stream="stderr", follow=False) == b""


def test_the_host_may_connect_to_a_job_on_bridge_and_not_to_one_on_isolated(host: Host, place: Stage) -> None:
    def greeting(address: str) -> str:
        with socket.create_connection((address, 80), 5 * PATIENCE) as connection:
            return connection.recv(100).decode()

    bridged, isolated = serving(host, "open", "bridge"), serving(host, "shut", "isolated")
    assert place.host.call(lambda: greeting(bridged)) == "hello 10.213.0.1\n"
    with pytest.raises(OSError, match=r"\[Errno 113\]"):
        place.host.call(lambda: greeting(isolated))


def test_nobody_outside_reaches_a_job(host: Host, place: Stage) -> None:
    address = serving(host, "inner", "bridge")

    def knock() -> int:
        from pyroute2 import IPRoute

        with IPRoute() as route:
            route.route("add", dst="10.213.0.0/16", gateway=HOST)
        with socket.socket() as client:
            client.settimeout(5 * PATIENCE)
            return client.connect_ex((address, 80))

    assert place.world.call(knock) == 113


def test_jobs_of_a_network_see_each_other_by_name_while_they_run(host: Host, backend: str) -> None:
    first = [*PYTHON, "import time\nwhile 'second' not in open('/etc/hosts').read(): time.sleep(0.05)\n" + SERVE]
    host.apply(job("first", backend, first))
    host.running("first")
    greet = """
import socket
for name in ("first", "first.backend"):
    for attempt in range(200):
        try:
            print(name, socket.create_connection((name, 80), 5).recv(100).decode().strip())
            break
        except ConnectionRefusedError:
            __import__("time").sleep(0.05)
"""
    host.apply(job("second", backend, [*PYTHON, greet]))
    assert host.finished("second").phase == "COMPLETED", host.log("second", stream="")
    assert re.fullmatch(r"first hello (10\.77\.1\.\d+)\nfirst.backend hello \1\n", host.log("second").decode())
    names = (
        "import time\nwhile 'second' in open('/etc/hosts').read(): time.sleep(0.05)\nprint(open('/etc/hosts').read())"
    )
    host.apply(job("third", backend, [*PYTHON, names]))
    host.finished("third")
    assert re.search(r"^10\.77\.1\.\d+\tfirst first\.backend$", host.log("third").decode(), re.MULTILINE)


def test_a_job_with_a_root_file_system_of_its_own_sees_the_others_too(host: Host, backend: str) -> None:
    root = host.root / "images/rooted"
    for name in ("etc", "usr", "dev", "proc"):
        (root / name).mkdir(parents=True)
    (root / "etc/hosts").symlink_to("/work/elsewhere")
    program = root / "cat"
    shutil.copy("/bin/cat", program)
    for line in subprocess.run(["ldd", "/bin/cat"], check=True, capture_output=True, text=True).stdout.splitlines():
        for word in line.split():
            if word.startswith("/"):
                (root / word[1:]).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(word, root / word[1:])
    serving(host, "known", backend)
    host.apply(job("rooted", backend, ["/cat", "/etc/hosts"], rootfs=str(root)))
    assert host.finished("rooted").phase == "COMPLETED", host.log("rooted", stream="")
    assert "known known.backend" in host.log("rooted").decode()


# --- what is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cidr", "why"),
    [
        ("10.77.1.128/25", "network/overlapping: spec.cidr: 10.77.1.128/25 overlaps 10.77.1.0/24 of network/backend"),
        ("10.213.7.0/24", "overlaps 10.213.0.0/16, from which bridge and isolated take addresses"),
        ("192.0.2.128/25", "overlaps 192.0.2.0/24, which the host reaches by up0"),
    ],
)
def test_overlapping_addresses_are_refused(host: Host, backend: str, cidr: str, why: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        host.apply(network("overlapping", cidr))
    assert why in str(refused.value.details())
    assert host.rnx("get", "network/overlapping").status != 0


def test_a_network_in_use_stays_and_its_addresses_do_not_change(host: Host, backend: str) -> None:
    serving(host, "stays", backend)
    ended = host.rnx("delete", "network/backend")
    assert ended.status != 0 and "stays" in ended.err
    with pytest.raises(grpc.RpcError, match="cannot change"):
        host.apply(network("backend", "10.77.9.0/24"))
    assert host.rnx("delete", "stays").status == 0


# --- speaking in another's name -----------------------------------------------------------------------------------------


def test_a_job_cannot_open_a_raw_socket_even_with_the_capability(host: Host) -> None:
    code = """
import socket
for family, kind, protocol in ((socket.AF_INET, socket.SOCK_RAW, 1), (socket.AF_PACKET, socket.SOCK_RAW, 0x300)):
    try:
        socket.socket(family, kind, protocol)
        print("opened")
    except OSError as error:
        print(error.errno)
"""
    host.apply(job("raw", "bridge", [*PYTHON, code], capabilities=["NET_RAW", "NET_ADMIN"]))
    assert host.finished("raw").phase == "COMPLETED"
    assert host.log("raw").decode().split() == ["1", "1"]


def test_frames_in_anothers_name_do_not_pass_the_bridge(host: Host, backend: str) -> None:
    """Even from root inside the job's network namespace, which no job is: the filter alone has to hold."""
    victim, liar = serving(host, "victim", backend), serving(host, "liar", backend)
    listener = within(inside(host, "victim"), listen_to_everything)
    sender = within(inside(host, "liar"), listen_to_everything)
    own, target = mac(liar), mac(victim)
    gateway = "10.77.1.1"
    honest = udp_frame(target, own, liar, victim, b"honest")
    lies = {
        "address": udp_frame(target, own, gateway, victim, b"lie: address"),
        "mac": udp_frame(target, mac("10.77.1.200"), liar, victim, b"lie: mac"),
        "arp address": arp_frame(target, own, own, gateway, victim),
        "arp mac": arp_frame(target, own, mac(gateway), liar, victim),
        "arp frame": arp_frame(target, mac(gateway), own, liar, victim),
        "ipv6": target + own + b"\x86\xdd" + b"lie: ipv6".ljust(60),
        "vlan": target + own + b"\x81\x00\x00\x01" + honest[12:],
    }
    with listener, sender:
        for frame in (*lies.values(), honest):
            sender.send(frame)
        listener.settimeout(10 * PATIENCE)
        heard: list[bytes] = []
        while not heard or b"honest" not in heard[-1] or heard[-1][12:14] != b"\x08\x00":
            heard.append(listener.recv(2048))
    for name, frame in lies.items():
        assert frame not in heard, name
    assert not any(b"lie" in frame for frame in heard)


def listen_to_everything() -> socket.socket:
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    sniffer.bind(("eth0", 0))
    return sniffer


def mac(address: str) -> bytes:
    return (b"\x02\x6b" if address.endswith(".1") else b"\x02\x6a") + socket.inet_aton(address)


def udp_frame(to: bytes, sender: bytes, source: str, target: str, text: bytes) -> bytes:
    payload = b"\x04\xd2\x04\xd2" + (8 + len(text)).to_bytes(2, "big") + b"\0\0" + text
    head = bytearray(b"\x45\0" + (20 + len(payload)).to_bytes(2, "big") + b"\0\0\0\0\x40\x11\0\0")
    head += socket.inet_aton(source) + socket.inet_aton(target)
    total = sum(int.from_bytes(head[at : at + 2], "big") for at in range(0, 20, 2))
    head[10:12] = (0xFFFF - (total % 0xFFFF or 0xFFFF)).to_bytes(2, "big")
    return to + sender + b"\x08\x00" + bytes(head) + payload


def arp_frame(to: bytes, sender: bytes, claimed_mac: bytes, claimed: str, target: str) -> bytes:
    """An ARP answer: ``claimed`` is at ``claimed_mac``."""
    body = b"\0\x01\x08\0\x06\x04\0\x02" + claimed_mac + socket.inet_aton(claimed) + to + socket.inet_aton(target)
    return to + sender + b"\x08\x06" + body


# --- bandwidth ----------------------------------------------------------------------------------------------------------


def test_a_limit_of_traffic_holds_in_both_directions(host: Host, place: Stage) -> None:
    amount, rate = 3_000_000, 1_000_000
    server = place.world.call(lambda: Pump(amount))
    code = f"""
import socket, time
def timed(what):
    start = time.monotonic()  # before anything can flow while this process waits for its turn
    s = socket.create_connection(({WORLD!r}, {server.port}))
    s.sendall(what)
    if what == b"g":
        while s.recv(65536): pass
    else:
        s.sendall(b"x" * {amount})
        s.shutdown(socket.SHUT_WR)
        s.recv(1)
    print(round(time.monotonic() - start, 3), flush=True)
timed(b"g"); timed(b"p")
"""
    try:
        host.apply(job("unlimited", "bridge", [*PYTHON, code]))
        host.apply(job("limited", "bridge", [*PYTHON, code], limits=json.dumps({"network": {"in": rate, "out": rate}})))
        free = [float(word) for word in host.log("unlimited").split()]
        held = [float(word) for word in host.log("limited").split()]
    finally:
        server.close()
    assert len(free) == len(held) == 2, (host.log("limited", stream=""), host.run("limited"))
    assert all(seconds > 0.5 * amount / rate for seconds in held), held
    assert all(seconds < 10 * amount / rate * PATIENCE for seconds in held), held
    assert sum(free) < sum(held), (free, held)
    told = [(one.name, one.asked, one.effective, one.enforced) for one in host.run("limited").attempts[-1].limits]
    wanted = {("network.in", readable_size(rate), readable_size(rate), True)}
    wanted.add(("network.out", readable_size(rate), readable_size(rate), True))
    assert wanted <= set(told), told


def test_a_bandwidth_that_the_kernel_cannot_hold_is_an_error(host: Host) -> None:
    host.apply(job("too-fast", "bridge", ["true"], limits=json.dumps({"network": {"out": "4Gi"}})))
    ended = host.finished("too-fast")
    assert (ended.phase, ended.reason) == ("FAILED", "StartError")
    assert "more than 4294967295 bytes a second cannot be limited" in ended.message


class Pump:
    """A server that gives (g) or takes (p) an amount of bytes."""

    def __init__(self, amount: int) -> None:
        import threading

        self.amount = amount
        self.listener = socket.create_server((WORLD, 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                if connection.recv(1) == b"g":
                    connection.sendall(b"x" * self.amount)
                else:
                    while connection.recv(65536):
                        pass
                    connection.sendall(b".")

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


# --- by rnx -------------------------------------------------------------------------------------------------------------


def test_a_network_is_made_listed_used_and_removed_by_rnx(host: Host) -> None:
    made = host.rnx("network", "create", "by-hand", "--cidr=10.77.5.0/24")
    assert (made.status, made.out) == (0, "network/by-hand created\n"), made.err
    again = host.rnx("network", "create", "by-hand", "--cidr=10.77.6.0/24")
    assert (again.status, "there is a network by-hand already" in again.err) == (6, True)
    wrong = host.rnx("network", "create", "wrong", "--cidr=10.77.5.1/24")
    assert (wrong.status, "--cidr: " in wrong.err and "did you mean 10.77.5.0/24?" in wrong.err) == (2, True), wrong.err
    taken = host.rnx("network", "create", "taken", "--cidr=10.77.5.64/26")
    assert (taken.status, "overlaps 10.77.5.0/24 of network/by-hand" in taken.err) == (6, True), taken.err
    used = host.rnx("run", "--network", "by-hand", "--name", "uses-it", "sleep", "1000")
    assert used.status == 0, used.err
    host.running("uses-it")
    header, *rows = host.rnx("network", "list").out.splitlines()
    (row,) = (row for row in rows if row.startswith("by-hand "))
    assert header.split() == ["NAME", "READY", "CIDR", "JOBS", "USED", "BY"]
    assert row.split() == ["by-hand", "True", "10.77.5.0/24", "1", "uses-it"]
    kept = host.rnx("network", "remove", "by-hand")
    assert (kept.status, "uses-it" in kept.err) == (6, True), kept.err
    assert host.rnx("delete", "uses-it").status == 0
    eventually(lambda: host.rnx("network", "remove", "by-hand").status == 0, what="its removal")
    eventually(lambda: "by-hand" not in host.rnx("network", "list").out, what="the list to be without it")


def test_a_job_waits_for_a_network_that_is_not_declared_yet(host: Host) -> None:
    host.apply(job("early", "later", ["/bin/true"]))
    told = eventually(lambda: [one.message for one in host.job("early").conditions if "network/later" in one.message])
    assert "apply a manifest of it" in told[0]
    host.apply(network("later", "10.77.7.0/24"))
    assert host.finished("early").phase == "COMPLETED"
