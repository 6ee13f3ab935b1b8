"""A job on a root file system of its own: sees it, may write to it, and leaves it as it was; a hostile one reaches nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.host import Host, job_host
from tests.integration.small_root import make_root, pack


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host() as host:
        make_root(host.root / "images/small")
        pack(host.root / "images/small", host.root / "images/small.tar.gz")
        yield host


def copied_root(host: Host, name: str) -> Path:
    return Path(shutil.copytree(host.root / "images/small", host.root / "images" / name, symlinks=True))


def run(host: Host, name: str, script: str, rootfs: Path, extra: str = "", spec: str = "") -> str:
    """What the script writes; it must succeed."""
    lines = "".join(f"    {line}\n" for line in script.strip().splitlines())
    host.apply(
        f"apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n"
        f"  isolation: {{rootfs: {rootfs}{extra}}}\n{spec}  script: |\n    #!/bin/sh\n{lines}"
    )
    ended = host.finished(name)
    output = host.log(name).decode()
    assert ended.phase == "COMPLETED", (ended, output, host.log(name, stream="stderr"))
    return output


@pytest.mark.parametrize("kind", ["small", "small.tar.gz"])
def test_a_job_sees_its_own_root_and_what_it_writes_does_not_stay(host: Host, kind: str) -> None:
    script = """
        cat /etc/release
        id -un
        stat -c '%u %A' /etc/release
        ls -d /usr/share /home /root /.dockerenv 2>/dev/null
        echo changed > /etc/release && touch /new /var/new && rm /bin/df && cat /etc/release
        cat /etc/hosts
        touch /work/file /tmp/file
        ls /
    """
    name = f"sees-{kind.partition('.')[2].replace('.', '-') or 'dir'}"
    for again in ("a", "b"):
        output = run(host, f"{name}-{again}", script, host.root / "images" / kind).splitlines()
        assert output[0] == "small root"
        assert "changed" in output and "127.0.0.1\tlocalhost" in output
        assert {"new", "work", "proc", "dev", "run"} <= set(output)
    assert (host.root / "images/small/etc/release").read_text() == "small root\n"
    assert not (host.root / "images/small/new").exists()


def test_where_the_kernel_maps_ids_the_jobs_root_owns_its_files(host: Host) -> None:
    script = "id -un; stat -c %u /etc/release /bin/sh"
    assert run(host, "owner", script, host.root / "images/small").split() == ["admin", "0", "0"]


def test_its_root_is_bounded(host: Host) -> None:
    script = """
        cat /dev/zero > /big 2>/tmp/why && echo none
        cat /tmp/why
        rm /big
        df -m / | cat
    """
    output = run(host, "bounded", script, host.root / "images/small", spec="  limits: {memory: 2Gi}\n")
    assert "No space left on device" in output and "none" not in output


def test_no_path_of_the_host_is_seen(host: Host) -> None:
    mounts = run(host, "mounts", "cat /proc/self/mountinfo /proc/mounts", host.root / "images/small.tar.gz")
    assert "overlay" in mounts and str(host.root) not in mounts and "joblet" not in mounts


@pytest.mark.parametrize("place", ["dev", "proc", "etc", "run", "work", "tmp", "sys"])
def test_a_link_where_we_mount_is_refused(host: Host, place: str) -> None:
    image = copied_root(host, f"link-{place}")
    if (image / place).exists():
        for path in (image / place).iterdir():
            path.unlink()
        (image / place).rmdir()
    victim = host.root / f"victim-{place}"
    victim.mkdir()
    (image / place).symlink_to(victim)
    host.apply(f"""
        apiVersion: joblet/v1
        kind: Job
        metadata: {{name: link-{place}}}
        spec: {{command: [/bin/sh, -c, "echo reached > /{place}/file"], isolation: {{rootfs: {image}}}}}
    """)
    ended = host.finished(f"link-{place}")
    assert (ended.phase, ended.reason) == ("FAILED", "StartError")
    assert f"the root file system's /{place} is no directory" in ended.message
    assert os.listdir(victim) == []


def test_a_file_of_etc_that_is_a_link_out_is_replaced(host: Host) -> None:
    image = copied_root(host, "link-hosts")
    victim = host.root / "victim"
    victim.write_text("host's")
    (image / "etc/hosts").symlink_to(victim)
    assert "localhost" in run(host, "link-hosts", "cat /etc/hosts", image)
    assert victim.read_text() == "host's"


def test_a_damaged_archive_is_a_start_error_with_its_path(host: Host) -> None:
    path = host.root / "images/bad.tar"
    path.write_bytes(b"no archive at all")
    host.apply(f"""
        apiVersion: joblet/v1
        kind: Job
        metadata: {{name: damaged}}
        spec: {{command: ["true"], isolation: {{rootfs: {path}}}}}
    """)
    ended = host.finished("damaged")
    assert (ended.reason, ended.exit_code) == ("StartError", 126)
    assert f"{path}: is no archive that can be read" in ended.message
