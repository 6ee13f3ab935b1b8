"""What is looked at while an attack runs, by the names that manifests give in their label ``meanwhile``."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from joblet.manifest.quantities import parse_size
from joblet.sandbox.loop_device import attach
from jobletd.executor.local.workspace import remove_workspace
from tests.hostile.attack import Attack
from tests.hostile.street import Street
from tests.integration.host import FINAL, eventually
from tests.timing import PATIENCE

NEIGHBOUR = """
    apiVersion: joblet/v1
    kind: Job
    metadata: {{name: beside-{name}}}
    spec: {{command: [echo, well, "{number}"]}}
"""
LONGER = (1, 2, 4, 8)  # times the time that an attack has
WATCHES = 8
MOST_TAKEN = 500  # by attacks/watch-table.yml
KOBJECT_UEVENT = 15  # <linux/netlink.h>
RACE_SECONDS = 3.0  # at least
LEAST_REMOVED = 20


def launches_go_on(street: Street, attack: Attack) -> None:
    """Another job is launched and ends well while the attack goes on: a longer one, where the machine is too busy for that."""
    for longer in LONGER:
        if longer > 1:
            street.attack(attack, longer=longer)
        (result,) = street.host.apply(NEIGHBOUR.format(name=attack.name, number=longer))
        neighbour = street.host.reaches(result, *FINAL, within=60)
        assert neighbour.phase == "COMPLETED", neighbour
        if street.host.run(attack.name).phase == "RUNNING":
            return
    raise AssertionError("the attack ended before the neighbour")


def while_it_runs(street: Street, attack: Attack, look: Callable[[], None]) -> None:
    """Look as often as it goes until the attack is over."""
    while street.host.run(attack.name).phase not in FINAL:
        look()


def processes_stay_below_limit(street: Street, attack: Attack) -> None:
    launches_go_on(street, attack)
    limit = attack.document["spec"]["limits"]["pids"]
    most = 0

    def look() -> None:
        nonlocal most
        pids = street.host.run(attack.name).attempts[-1].usage.pids
        most = max(pids, most)
        assert pids <= limit

    while_it_runs(street, attack, look)
    for longer in LONGER[1:]:  # it may have been about to end as the neighbour did
        if most > limit / 4:
            break
        street.attack(attack, longer=longer)
        while_it_runs(street, attack, look)
    assert most > limit / 4, f"the attack was a lame one: {most} processes at most"


def memory_stays_below_limit(street: Street, attack: Attack) -> None:
    street.host.finished(attack.name, within=90)
    usage = street.host.run(attack.name).attempts[-1].usage
    limit = parse_size(attack.document["spec"]["limits"]["memory"])
    assert limit / 2 < usage.memory_peak_bytes <= limit
    assert (usage.oom_kills > 0) == (attack.reason == "OOMKilled")


def logs_stay_below_limit(street: Street, attack: Attack) -> None:
    launches_go_on(street, attack)
    directory = street.host.root / "log" / attack.name
    seen: set[int] = set()

    def look() -> None:
        size = size_of(directory)
        seen.add(size)
        assert size <= attack.logs_bytes * 5 / 4, f"{size} bytes in {directory}"

    while_it_runs(street, attack, look)
    look()
    assert max(seen) > attack.logs_bytes / 2, f"the flood was a small one: {max(seen)} bytes at most"


def size_of(directory: Path) -> int:
    total = 0
    for path in directory.iterdir():
        with suppress(FileNotFoundError):  # rotated away meanwhile
            total += path.stat().st_blocks * 512
    return total


def removing_races_with_links(street: Street, attack: Attack) -> None:
    """The host removes a directory that a live job keeps replacing by a link, until it has done so often enough for both."""
    eventually(lambda: b"RACING\n" in street.host.log(attack.name, follow=False), what="the race has begun")
    workspace = workspace_of(street, attack)
    removed, end = 0, time.monotonic() + RACE_SECONDS
    while removed <= LEAST_REMOVED or time.monotonic() < end:
        assert street.host.run(attack.name).phase not in FINAL, f"it ended, {removed} directories removed"
        for _ in range(500):  # of these looks many find a link, and asking the daemon takes longer than all of them
            removed += sum(removes(workspace / "race" / name) for name in ("a", "b"))
    (workspace / "enough").touch()


def removes(path: Path) -> bool:
    """Whether it was a directory, and is gone."""
    try:
        directory = stat.S_ISDIR(path.lstat().st_mode)
        remove_workspace(str(path))
    except OSError:
        return False  # not there, or a link by now, or not empty again
    return directory


def forged_records_are_text(street: Street, attack: Attack) -> None:
    """What poses as a record of another stream and time is a line of this one, with the time at which it was written."""
    street.host.finished(attack.name)
    forged = [entry for entry in street.entries(attack.name) if b"forged" in entry.data]
    assert len(forged) == 3  # one is what the script says of it
    assert all(entry.stream == "stdout" and time.time_ns() - entry.time_ns < 3600 * 10**9 for entry in forged)


def by_every_descriptor(street: Street, attack: Attack) -> None:
    """The same by each descriptor that there may be: none is a directory to start in."""
    document = json.loads(attack.manifest(street.targets))
    variants = {f"{attack.name}-{fd}": f"/proc/self/fd/{fd}" for fd in range(3, 48)}
    street.host.apply(
        "---\n".join(
            json.dumps({**document, "metadata": {"name": name}, "spec": {**document["spec"], "workdir": workdir}})
            + "\n"
            for name, workdir in variants.items()
        )
    )
    ends = {name: street.host.finished(name).reason for name in variants}
    started = {
        variants[name]: street.host.log(name).decode() for name, reason in ends.items() if reason != "StartError"
    }
    assert not started, started


def host_can_watch_as_before(street: Street, attack: Attack) -> None:
    """How many inotify instances root can still get does not depend on what the job has taken."""
    eventually(lambda: b"TAKEN " in street.host.log(attack.name, follow=False), what="the job has taken all there are")
    limit = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    taken = int(street.host.log(attack.name, follow=False).split(b"TAKEN ")[1].split()[0])
    try:
        # Of a higher limit root would have enough left: then it is only seen that the job gets its own.
        assert taken > min(limit, MOST_TAKEN) - WATCHES, f"{taken} of {limit} were taken"
        assert can_watch(), "what the job has taken is missing to the host"
    finally:
        (workspace_of(street, attack) / "looked").touch()


def events_of_the_host(street: Street, attack: Attack) -> None:
    """The kernel tells of a device of ours, to us and not to the job."""
    eventually(lambda: b"LISTENING\n" in street.host.log(attack.name, follow=False), what="the job listens")
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, KOBJECT_UEVENT) as events:
        events.bind((0, 1))
        events.settimeout(20 * PATIENCE)
        with tempfile.NamedTemporaryFile() as image:
            image.truncate(1 << 20)
            device, path = attach(image.name)
            try:
                while f"DEVNAME={path.removeprefix('/dev/')}\0".encode() not in events.recv(65536):
                    pass
            finally:
                os.close(device)
    (workspace_of(street, attack) / "told").touch()


def can_watch() -> bool:
    """Whether root gets some: few, as others on this host want to watch meanwhile."""
    libc = ctypes.CDLL(None, use_errno=True)
    fds = [libc.inotify_init1(os.O_CLOEXEC) for _ in range(WATCHES)]
    for fd in fds:
        if fd >= 0:
            os.close(fd)
    return all(fd >= 0 for fd in fds)


def workspace_of(street: Street, attack: Attack) -> Path:
    """Of a job that runs, as we see it."""
    return Path(f"/proc/{street.processes_of(attack.name)[0].split()[0]}/root/work")


MEANWHILE: dict[str, Callable[[Street, Attack], None]] = {
    "": lambda street, attack: None,
    "launches-go-on": launches_go_on,
    "processes-stay-below-limit": processes_stay_below_limit,
    "memory-stays-below-limit": memory_stays_below_limit,
    "by-every-descriptor": by_every_descriptor,
    "host-can-watch-as-before": host_can_watch_as_before,
    "events-of-the-host": events_of_the_host,
    "forged-records-are-text": forged_records_are_text,
    "logs-stay-below-limit": logs_stay_below_limit,
    "removing-races-with-links": removing_races_with_links,
}
