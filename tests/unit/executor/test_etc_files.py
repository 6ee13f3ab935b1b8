"""A job's own files of /etc name the job's own user, group and host."""

from __future__ import annotations

import pytest

from joblet.manifest import Isolation
from jobletd.executor.local.etc_files import etc_files, user_name


def files(**isolation: object) -> dict[str, str]:
    return etc_files(Isolation.model_validate(isolation), "box.example.org")


@pytest.mark.parametrize(
    ("isolation", "user", "group"),
    [
        ({}, "root:x:0:0:root:/work:/bin/sh", "root:x:0:"),
        ({"user": 1000}, "job:x:1000:1000:job:/work:/bin/sh", "job:x:1000:"),
        ({"user": 1000, "group": 0}, "job:x:1000:0:job:/work:/bin/sh", "root:x:0:"),
        ({"user": 0, "group": 50}, "root:x:0:50:root:/work:/bin/sh", "job:x:50:"),
        ({"user": 65534}, "nobody:x:65534:65534:nobody:/work:/bin/sh", "nogroup:x:65534:"),
    ],
)
def test_passwd_and_group(isolation: dict[str, object], user: str, group: str) -> None:
    made = files(**isolation)
    assert user in made["passwd"].splitlines() and group in made["group"].splitlines()
    for text in (made["passwd"], made["group"]):
        ids = [line.split(":")[2] for line in text.splitlines()]
        names = [line.split(":")[0] for line in text.splitlines()]
        assert len(set(ids)) == len(ids) and len(set(names)) == len(names)


def test_the_name_in_the_environment_is_that_of_passwd() -> None:
    assert [user_name(uid) for uid in (0, 1000, 65534)] == ["root", "job", "nobody"]


def test_the_host_finds_its_own_name() -> None:
    assert "127.0.1.1\tbox.example.org box\n" in files()["hosts"]
    assert files()["hostname"] == "box.example.org\n"


def test_only_with_the_hosts_network_its_name_servers_are_told() -> None:
    assert "resolv.conf" not in files() and "resolv.conf" not in files(network="none")


def test_a_root_file_system_of_its_own_keeps_its_users() -> None:
    assert set(files(rootfs="/images/one")) == {"hosts", "hostname"}
