"""How large a workspace is, and where it lies: always bounded, in memory only where it does not cost what was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from joblet.manifest import Limits
from jobletd.executor.local import LocalSettings
from jobletd.executor.local.workspace import Bound, WorkspaceError, bound_of, make_image

MI = 1 << 20
SETTINGS = LocalSettings("/s", "/l", "/r", default_disk_bytes=512 * MI, memory_disk_bytes=64 * MI)


@pytest.mark.parametrize(
    ("limits", "bound"),
    [
        ({}, Bound(512 * MI, in_memory=True)),
        ({"memory": "64Mi"}, Bound(32 * MI, in_memory=True)),
        ({"memory": "1Mi"}, Bound(MI, in_memory=True)),
        ({"memory": "8Gi"}, Bound(512 * MI, in_memory=True)),
        ({"disk": "16Mi"}, Bound(16 * MI, in_memory=True)),
        ({"disk": "16Mi", "memory": "32Mi"}, Bound(16 * MI, in_memory=True)),
        ({"disk": "16Mi", "memory": "31Mi"}, Bound(16 * MI, in_memory=False)),
        ({"disk": "65Mi"}, Bound(65 * MI, in_memory=False)),
        ({"disk": "16Mi", "io": {"read": "1Mi"}}, Bound(16 * MI, in_memory=False)),
        ({"io": {"read": "1Mi"}}, Bound(512 * MI, in_memory=False)),
    ],
)
def test_the_bound(limits: dict[str, Any], bound: Bound) -> None:
    assert bound_of(Limits.model_validate(limits), SETTINGS, has_loop=lambda: True) == bound


def test_without_loop_devices_all_is_in_memory() -> None:
    assert bound_of(Limits.model_validate({"disk": "1Gi"}), SETTINGS, has_loop=lambda: False) == Bound(
        1024 * MI, in_memory=True
    )


def test_an_image_takes_its_blocks_at_once(tmp_path: Path) -> None:
    make_image(str(tmp_path / "image"), 8 * MI)
    status = (tmp_path / "image").stat()
    assert status.st_size == 8 * MI and status.st_mode & 0o777 == 0o600
    # What cannot be reserved takes none: never a part.
    assert status.st_blocks * 512 >= 8 * MI or status.st_blocks == 0


def test_an_image_that_leaves_the_host_no_reserve_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match=r"spec\.limits\.disk: the host's disk has .* left for workspaces"):
        make_image(str(tmp_path / "image"), 1 << 60)
    assert (tmp_path / "image").stat().st_size == 0
