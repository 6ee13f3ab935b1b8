"""The files of a job's /etc that depend on the job: pure, but for the host's resolver configuration."""

from __future__ import annotations

from contextlib import suppress

from joblet.manifest import Isolation, Network

RESOLV_CONF = "/etc/resolv.conf"
NOBODY = 65534
JOB_USER = "job"  # the name of a user who is neither root nor nobody
_MAX_BYTES = 64 << 10


def group_of(isolation: Isolation) -> int:
    return isolation.user if isolation.group is None else isolation.group


def user_name(uid: int) -> str:
    """Who it is by /etc/passwd."""
    return {0: "root", NOBODY: "nobody"}.get(uid, JOB_USER)


def etc_files(isolation: Isolation, hostname: str) -> dict[str, str]:
    """Name below /etc to content. A root file system of the job's own keeps its passwd and group."""
    files = {"hosts": hosts(hostname), "hostname": f"{hostname}\n"}
    if isolation.rootfs == "host":
        files |= {"passwd": passwd(isolation), "group": group(isolation)}
    if isolation.network is Network.HOST:
        with suppress(OSError), open(RESOLV_CONF) as file:
            files["resolv.conf"] = file.read(_MAX_BYTES)
    return files


def passwd(isolation: Isolation) -> str:
    gid = group_of(isolation)
    users = {0: 0, NOBODY: NOBODY} | {isolation.user: gid}
    lines = []
    for uid in sorted(users):
        shell = "/bin/sh" if uid in (0, isolation.user) else "/usr/sbin/nologin"
        lines.append(f"{user_name(uid)}:x:{uid}:{users[uid]}:{user_name(uid)}:/work:{shell}\n")
    return "".join(lines)


def group(isolation: Isolation) -> str:
    names = {0: "root", 5: "tty", NOBODY: "nogroup"}
    gid = group_of(isolation)
    return "".join(f"{name}:x:{number}:\n" for number, name in sorted({gid: JOB_USER, **names}.items()))


def hosts(hostname: str) -> str:
    """Of two addresses that mean the job itself, the second one is what its own name stands for."""
    short = hostname.partition(".")[0]
    names = hostname if short == hostname else f"{hostname} {short}"
    return f"127.0.0.1\tlocalhost\n127.0.1.1\t{names}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
