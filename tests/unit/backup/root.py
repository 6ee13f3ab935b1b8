"""A root directory as ``joblet init`` makes it, with a database that has something in it."""

from __future__ import annotations

import os
from pathlib import Path

from joblet.config.server import ServerConfig, load_server_config
from jobletd.backup.making import DATABASE
from jobletd.setup import Setup, make_root
from jobletd.store import Store
from jobletd.store.migrations import MIGRATIONS
from tests.unit.store.earlier import make_database


class Root:
    """path: where everything is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        make_root(Setup(str(path), (), 0, "/sys/fs/cgroup/joblet-none.slice/joblet.service"))
        self.config_path = str(path / "config/joblet-config.yml")
        make_database(self.database, len(MIGRATIONS))
        Store.open(str(self.database)).close()
        (path / "spool/report.yml").write_text("one")
        uploads = path / "state/blobs/sha256"
        uploads.mkdir(parents=True)
        (uploads / ("a" * 64)).write_text("content")

    @property
    def config(self) -> ServerConfig:
        return load_server_config(self.config_path, {})

    @property
    def database(self) -> Path:
        return self.path / "state" / DATABASE

    def files(self) -> dict[str, bytes]:
        """All that counts as state."""
        return {
            str(file.relative_to(self.path)): file.read_bytes()
            for file in sorted(self.path.rglob("*"))
            if file.is_file() and file.name not in ("joblet.lock", "joblet.db-shm") and os.stat(file).st_size
        }

    def damage(self) -> None:
        """In the middle of the database."""
        with self.database.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * 3 * 4096)
