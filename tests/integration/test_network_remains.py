"""Interfaces, addresses and rules of jobs' networks are given back, whatever dies; and what lives keeps its network."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from joblet.api.v1 import job_pb2
from joblet.crash_points import VARIABLE
from jobletd.executor.local.networking import filter as packet_filter
from jobletd.executor.local.networking.errors import NetworkUnavailable
from jobletd.executor.local.networking.host_networks import HostNetworks, NetworkSettings
from tests.integration.host import Host, cgroup_directories, eventually, job_host
from tests.integration.network_stage import WORLD, Stage, stage
from tests.integration.processes import children
from tests.integration.test_local_executor import backing_files
from tests.integration.test_networks import ASK, PYTHON, job, network, serving
from tests.timing import PATIENCE

pytestmark = pytest.mark.native_only(reason="the guest's kernel has no nf_tables")

UP0_FORWARDING = Path("/proc/sys/net/ipv4/conf/up0/forwarding")


@pytest.fixture
def place() -> Iterator[Stage]:
    with stage() as there:
        yield there


@pytest.fixture
def host(place: Stage) -> Iterator[Host]:
    with job_host(within=place.within) as host:
        yield host


def cables(place: Stage) -> set[str]:
    """The host's ends of jobs' cables."""
    return {name for name in place.interfaces() if re.fullmatch(r"jb[0-9a-f]{13}", name)}


def all_that_is_ours(host: Host) -> set[int]:
    """Daemon, launcher and inits."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            ours = host.root.name in (process / "cgroup").read_text() and command.startswith(b"joblet-init")
        except OSError:
            continue
        if ours:
            found.append(int(process.name))
    assert host.daemon is not None
    return {host.daemon.pid, *children(host.daemon.pid), *found}


def delete_network(host: Host, name: str) -> None:
    """Once the last job on it, which is being deleted, has gone: until then it is refused."""
    eventually(lambda: host.rnx("delete", f"network/{name}", "--ignore-not-found").status == 0, what="its deletion")


def test_nothing_is_left_after_a_clean_stop(host: Host, place: Stage) -> None:
    host.apply(network("backend", "10.77.1.0/24"))
    serving(host, "one", "bridge")
    serving(host, "two", "backend")
    assert len(cables(place)) == 2
    assert place.host.call(UP0_FORWARDING.read_text) == "1\n"
    host.stop()
    assert place.interfaces() == place.bare
    assert place.ruleset() == ""
    assert place.host.call(UP0_FORWARDING.read_text) == "0\n"


def test_without_nft_a_network_that_could_not_be_made_is_taken_back(
    place: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packet_filter, "PATH", str(tmp_path))
    settings = NetworkSettings(str(tmp_path), tmp_path / "run", IPv4Network("10.99.0.0/16"), (), ())

    async def scene() -> None:
        networks = HostNetworks(settings)
        await networks.start()
        lan = networks.lan_named("bridge")
        with pytest.raises(NetworkUnavailable, match="no nft"):
            await networks.ensure(lan)
        await networks.drop(lan)
        await networks.close()

    place.host.call(lambda: asyncio.run(scene()))
    assert place.interfaces() == place.bare
    assert list((tmp_path / "run").iterdir()) == []


def test_a_network_that_could_not_be_made_whole_is_taken_back(place: Stage, tmp_path: Path) -> None:
    settings = NetworkSettings(str(tmp_path), tmp_path / "run", IPv4Network("10.99.0.0/16"), (), ())
    notes = tmp_path / "run/forwarding"

    async def scene() -> None:
        networks = HostNetworks(settings)
        await networks.start()
        notes.mkdir(parents=True)  # in the way: the bridge and its rules stand by the time that they are to be written
        lan = networks.lan_named("bridge")
        with pytest.raises(IsADirectoryError):
            await networks.ensure(lan)
        assert (place.interfaces(), place.ruleset()) == (place.bare, "")
        notes.rmdir()
        await networks.ensure(lan)
        assert place.interfaces() == place.bare | {lan.bridge}
        assert networks.naming.table in place.ruleset()
        await networks.close()

    place.host.call(lambda: asyncio.run(scene()))
    assert place.interfaces() == place.bare
    assert place.ruleset() == ""


def test_rules_and_forwarding_go_with_the_last_network_while_the_daemon_runs(host: Host, place: Stage) -> None:
    """And not only at its end, at which there is no network that would tell of them."""
    host.apply(network("first", "10.77.1.0/24"))
    host.apply(network("last", "10.77.2.0/24"))
    host.apply(job("once", "last", ["/bin/true"]))
    assert host.finished("once").phase == "COMPLETED"
    host.rnx("delete", "once")
    host.rnx("delete", "network/first")
    eventually(lambda: len(place.interfaces() - place.bare) == 1, what="the first network to be gone")
    assert "table inet" in place.ruleset()
    delete_network(host, "last")
    eventually(lambda: place.ruleset() == "", what="the rules to be gone")
    assert place.interfaces() == place.bare
    assert place.host.call(UP0_FORWARDING.read_text) == "0\n"
    serving(host, "again", "bridge")
    assert "table inet" in place.ruleset()
    assert place.host.call(UP0_FORWARDING.read_text) == "1\n"


def test_rules_of_a_daemon_that_died_while_its_last_network_went_are_removed(place: Stage, tmp_path: Path) -> None:
    with job_host(within=place.within, environment={VARIABLE: str(tmp_path)}) as host:
        host.apply(network("backend", "10.77.1.0/24"))
        eventually(lambda: len(place.interfaces() - place.bare) == 1, what="the network's bridge")
        (tmp_path / "network.bridge-removed").touch()
        host.rnx("delete", "network/backend")
        assert host.daemon is not None
        host.daemon.wait(60 * PATIENCE)
        assert place.interfaces() == place.bare
        assert "table inet" in place.ruleset()
        host.start()
        eventually(lambda: place.ruleset() == "", what="the rules to be gone")


def test_nothing_is_left_once_the_daemon_is_back_after_all_of_ours_was_killed(host: Host, place: Stage) -> None:
    host.apply(network("backend", "10.77.1.0/24"))
    for number in range(4):
        serving(host, f"killed-{number}", "bridge" if number % 2 else "backend")
    pids = all_that_is_ours(host)
    assert len(pids) >= 6, pids  # the daemon, its launcher, four inits
    for pid in pids:
        with suppress(ProcessLookupError):  # the launcher follows its daemon
            os.kill(pid, signal.SIGKILL)
    host.kill()
    host.start()
    assert [host.finished(f"killed-{number}").reason for number in range(4)] == ["Lost"] * 4
    eventually(lambda: not cables(place), what="the cables to be gone")
    host.rnx("delete", *(f"killed-{number}" for number in range(4)))
    delete_network(host, "backend")
    eventually(lambda: len(place.interfaces() - place.bare) == 1, what="the network's bridge to be gone")
    host.stop()
    assert place.interfaces() == place.bare
    assert place.ruleset() == ""


def test_a_job_keeps_its_network_when_the_daemon_dies_and_nobody_gets_its_address(host: Host, place: Stage) -> None:
    host.apply(network("backend", "10.77.1.0/24"))
    first = serving(host, "first", "backend")
    server = place.serve(place.world, WORLD)
    host.kill()
    host.start()
    assert host.run("first").phase == "RUNNING"
    host.apply(
        job("second", "backend", [*PYTHON, ASK, f"tcp:{first}:80", "tcp:first:80", f"tcp:{WORLD}:{server.port}"])
    )
    assert host.finished("second").phase == "COMPLETED"
    greetings = host.log("second").decode().splitlines()
    mine = greetings[0].split()[-1]
    assert mine != first
    assert greetings[:2] == [f"tcp:{first}:80 hello {mine}", f"tcp:first:80 hello {mine}"]
    assert len(greetings) == 3


def test_a_job_that_never_began_has_no_interface(host: Host, place: Stage) -> None:
    host.apply(job("absent", "bridge", ["/no/such/program"]))
    assert host.finished("absent").phase == "FAILED"
    eventually(lambda: not cables(place), what="its cable to be gone")


def test_addresses_of_many_jobs_are_all_given_back(host: Host, place: Stage) -> None:
    host.apply(network("small", "10.77.3.0/28"))
    count = 100
    names = [f"many-{number}" for number in range(count)]
    text = "\n---\n".join(job(name, "bridge", ["/bin/true"]) for name in names)
    stream = host.jobs.Watch(job_pb2.WatchRequest(), timeout=100 * PATIENCE)
    next(iter(stream))
    host.apply(text)
    done: set[str] = set()
    for event in stream:
        if event.job.runs and event.job.runs[0].phase in ("COMPLETED", "FAILED"):
            assert event.job.runs[0].phase == "COMPLETED", event.job.runs[0]
            done.add(event.job.name)
            if len(done) == count:
                break
    stream.cancel()
    # A network of thirteen addresses serves any number of jobs, one after another.
    for number in range(30):
        host.apply(job(f"small-{number}", "small", ["/bin/true"]))
        assert host.finished(f"small-{number}").phase == "COMPLETED"
    eventually(lambda: not cables(place), what="all cables to be gone")


def test_a_full_network_says_so(host: Host, place: Stage) -> None:
    host.apply(network("tiny", "10.77.4.0/29"))
    for number in range(5):
        host.apply(job(f"holds-{number}", "tiny", ["/bin/sleep", "1000"]))
        host.running(f"holds-{number}")
    host.apply(job("late", "tiny", ["/bin/true"]))
    run = host.finished("late")
    assert run.phase == "FAILED" and "all 5 addresses of 10.77.4.0/29 are in use" in run.message, run


def test_a_pool_that_overlaps_the_hosts_addresses_is_refused_when_it_is_needed(place: Stage) -> None:
    def change(config: dict[str, object]) -> None:
        config["network"] = {"pool": "192.0.2.0/24"}

    with job_host(within=place.within, configure=change) as host:
        host.apply(job("hopeless", "bridge", ["/bin/true"]))
        message = host.finished("hopeless").message
        assert "192.0.2.0/25 overlaps 192.0.2.0/24, which the host reaches by up0" in message
        assert "network.pool" in message
        assert place.interfaces() == place.bare


def test_another_daemons_interfaces_are_left_alone(host: Host, place: Stage) -> None:
    serving(host, "mine", "bridge")
    with job_host(
        within=place.within, configure=lambda config: config.update(network={"pool": "10.214.0.0/16"})
    ) as other:
        other.apply(job("theirs", "bridge", ["/bin/true"]))
        assert other.finished("theirs").phase == "COMPLETED"
        assert len(place.ruleset().split("table inet joblet_")) == 3
        other.kill()
        other.start()
    assert len(cables(place)) == 1
    assert len(place.ruleset().split("table inet joblet_")) == 2


def test_ports_of_the_host_that_are_allowed_are_reached(place: Stage) -> None:
    server = place.serve(place.host, "0.0.0.0")
    closed = place.serve(place.host, "0.0.0.0")

    def change(config: dict[str, object]) -> None:
        config["network"] = {"allowHostPorts": [server.port, f"{closed.port}/udp"], "deny": []}

    with job_host(within=place.within, configure=change) as host:
        targets = [f"{kind}:10.213.0.1:{port}" for kind in ("tcp", "udp") for port in (server.port, closed.port)]
        host.apply(job("asks", "bridge", [*PYTHON, ASK, *targets]))
        assert host.finished("asks").phase == "COMPLETED"
        answers = [line.split(" ", 1)[1] for line in host.log("asks").decode().splitlines()]
    assert [answer.startswith("10.213.0.") for answer in answers] == [True, False, False, True], answers


def test_rules_that_somebody_flushes_come_back(host: Host, place: Stage) -> None:
    serving(host, "served", "bridge")
    before = place.ruleset()
    assert "table inet" in before and "table bridge" in before
    place.host.call(flush)
    eventually(lambda: place.ruleset() == before, what="the rules to hold again")


def flush() -> None:
    subprocess.run(["nft", "flush", "ruleset"], check=True)


SHORT = 440
LONG = 60


@pytest.mark.timeout(300)
def test_nothing_is_left_of_five_hundred_jobs_after_all_of_ours_was_killed(place: Stage) -> None:
    with job_host(within=place.within) as host:
        host.apply("apiVersion: joblet/v1\nkind: Volume\nmetadata: {name: data}\nspec: {size: 16Mi}\n")
        short = [
            job(f"short-{number}", "bridge" if number % 4 == 0 else "none", ["/bin/true"]) for number in range(SHORT)
        ]
        long = [on_all(f"long-{number}") for number in range(LONG)]
        stream = host.jobs.Watch(job_pb2.WatchRequest(), timeout=200 * PATIENCE)
        next(iter(stream))
        for start in range(0, SHORT, 100):
            host.apply("\n---\n".join(short[start : start + 100]))
        host.apply("\n---\n".join(long))
        ended, running = set(), set()
        for event in stream:
            phase = event.job.runs[0].phase if event.job.runs else ""
            if event.job.name.startswith("long-"):
                assert phase not in ("FAILED", "COMPLETED"), event.job.runs[0]
                running |= {event.job.name} if phase == "RUNNING" else set()
            elif phase in ("COMPLETED", "FAILED"):
                assert phase == "COMPLETED", event.job.runs[0]
                ended.add(event.job.name)
            if (len(ended), len(running)) == (SHORT, LONG):
                break
        stream.cancel()
        assert len(cables(place)) >= LONG
        for pid in all_that_is_ours(host):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        host.kill()
        host.start()
        assert {host.finished(f"long-{number}").reason for number in range(LONG)} == {"Lost"}
        attempts, work = (host.root / "state" / name for name in ("attempts", "work"))
        eventually(lambda: not [*attempts.iterdir(), *work.iterdir()], what="the attempts' directories to be gone")
        eventually(lambda: not cables(place), what="the cables to be gone")
        left = [path for base in cgroup_directories(host.cgroup_base) for path in base.glob("job-*")]
        assert left == []
        # Each range of ids is free again: the first one is given out.
        host.apply(job("after", "none", ["cat", "/proc/self/uid_map"]))
        host.finished("after")
        assert host.log("after").split()[1] == str(0x7000_0000).encode()
        host.rnx("delete", "volume/data")
        eventually(lambda: not list((host.root / "state/volumes").iterdir()), what="the volume to be gone")
    ours = str(host.root)  # other tests run meanwhile
    eventually(lambda: ours not in backing_files(), what="the loop devices to be free")
    assert ours not in Path("/proc/self/mountinfo").read_text()


def on_all(name: str) -> str:
    """A job that runs on, with a network, a volume and a disk of its own."""
    return (
        f"apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n  command: [sleep, '600']\n"
        "  limits: {memory: 64Mi, disk: 8Mi, io: {write: 50Mi}}\n  volumes: [{name: data, path: /data}]\n"
        "  isolation: {network: bridge}\n"
    )
