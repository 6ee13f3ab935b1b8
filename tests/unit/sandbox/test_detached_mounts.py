"""Mounts that are made before they are anywhere: copied, changed, then put into their place. In a mount namespace of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from joblet.sandbox import mounts, syscalls
from tests.apart import run_apart

BASE = 0x7200_0000


def in_a_mount_namespace(call: Callable[..., object], *arguments: str | bool | int) -> None:
    """Call in a process whose mounts are its own; it must come back."""
    run_apart(called, call.__name__, *arguments)


def called(name: str, *arguments: str | bool | int) -> None:
    """In the process of its own."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    globals()[name](*arguments)


def user_namespace(mapping: str) -> int:
    """A descriptor of a user namespace with that map."""
    ready_read, ready_write = os.pipe()
    pid, pidfd = syscalls.clone3(syscalls.CLONE_NEWUSER)
    if pid == 0:
        os.close(ready_write)
        os.read(ready_read, 1)
        os._exit(0)
    try:
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{name}").write_text(mapping)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready_write)
        os.waitpid(pid, 0)
        for fd in (pidfd, ready_read):
            os.close(fd)


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "file").write_text("there")
    return source, target


def copy_changed(above: str) -> None:
    source, target = Path(above, "source"), Path(above, "target")
    syscalls.mount("tmpfs", str(source), "tmpfs")
    (source / "below").mkdir()
    syscalls.mount("tmpfs", str(source / "below"), "tmpfs")
    tree = syscalls.open_tree(str(source), syscalls.OPEN_TREE_CLONE | syscalls.AT_RECURSIVE)
    syscalls.mount_setattr(tree, attr_set=syscalls.MOUNT_ATTR_RDONLY, recursive=True)
    syscalls.move_mount(tree, str(target))
    for place in (target, target / "below"):
        with pytest.raises(OSError, match="Read-only"):
            (place / "new").write_text("")
    (source / "below/new").write_text("")
    assert (target / "below/new").exists()


def test_a_copy_of_a_mount_is_changed_before_it_is_anywhere(places: tuple[Path, Path]) -> None:
    source, _ = places
    in_a_mount_namespace(copy_changed, str(source.parent))


def ids_mapped(above: str) -> None:
    source, target = Path(above, "source"), Path(above, "target")
    tree = syscalls.open_tree(str(source), syscalls.OPEN_TREE_CLONE)
    namespace = user_namespace(f"0 {BASE} 65536")
    syscalls.mount_setattr(tree, attr_set=syscalls.MOUNT_ATTR_IDMAP, userns_fd=namespace)
    syscalls.move_mount(tree, str(target))
    assert (target / "file").stat().st_uid == BASE
    assert (source / "file").stat().st_uid == 0


def test_an_idmapped_mount_shows_files_as_those_of_the_namespaces_users(places: tuple[Path, Path]) -> None:
    source, _ = places
    in_a_mount_namespace(ids_mapped, str(source.parent))


def directories_sealed(above: str) -> None:
    target = Path(above, "target")
    syscalls.mount("", "/", "", syscalls.MS_REC | 1 << 20)  # MS_SHARED, as systemd has it
    syscalls.mount("tmpfs", "/usr/share", "tmpfs", 0, "mode=0777")
    Path("/usr/share/late").mkdir()
    mounts.execute(mounts.plan_template(str(target)))
    for place in (target / "usr/new", target / "usr/share/new"):
        with pytest.raises(OSError, match="Read-only"):
            place.write_text("")
    assert os.statvfs(target / "usr/share").f_flag & os.ST_NOSUID
    syscalls.mount("tmpfs", "/usr/share/late", "tmpfs")
    Path("/usr/share/late/file").write_text("")
    assert not (target / "usr/share/late/file").exists()


def test_system_directories_are_sealed_with_what_is_mounted_below_them_and_later_mounts_stay_out(
    places: tuple[Path, Path],
) -> None:
    _, target = places
    in_a_mount_namespace(directories_sealed, str(target.parent))


def overlaid(above: str, mapped: bool, owner: int) -> None:
    source, target = Path(above, "source"), Path(above, "target")
    syscalls.mount("tmpfs", str(target), "tmpfs")
    for name in ("lower", "upper", "work", "root"):
        (target / name).mkdir()
    namespace = user_namespace(f"0 {BASE} 65536") if mapped else mounts.NO_NAMESPACE
    flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_RECURSIVE
    trees = [syscalls.open_tree(str(source), flags) for _ in range(2)]
    mounts.execute([("overlay", trees, str(target), f"{target}/root", namespace)])
    assert (target / "root/file").stat().st_uid == owner
    (target / "root/file").write_text("changed")
    (target / "root/new").write_text("")
    with pytest.raises(OSError, match="Read-only"):
        (target / "lower/file").write_text("")


@pytest.mark.parametrize(("mapped", "owner"), [(True, BASE), (False, 0)])
def test_a_root_file_system_is_overlaid_with_its_ids_mapped_or_without(
    places: tuple[Path, Path], mapped: bool, owner: int
) -> None:
    source, _ = places
    in_a_mount_namespace(overlaid, str(source.parent), mapped, owner)
    assert [(path.name, path.read_text()) for path in source.iterdir()] == [("file", "there")]


def test_an_error_names_the_place() -> None:
    with pytest.raises(OSError, match="No such file or directory: '/no/such/place'"):
        syscalls.open_tree("/no/such/place", syscalls.OPEN_TREE_CLONE)
    with pytest.raises(OSError, match="No such file or directory: '/no/such/place'"):
        syscalls.mount_setattr("/no/such/place", attr_set=syscalls.MOUNT_ATTR_RDONLY)
