"""``joblet backup`` and ``joblet restore``: what they say."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from shlex import quote

from joblet.clock import SystemClock
from joblet.config.server import config_path, load_server_config
from jobletd.backup.archive import read_archive
from jobletd.backup.errors import BackupError
from jobletd.backup.keeper import backup_directory, keep_newest, name_of
from jobletd.backup.making import UNIT, BackupOptions, make_backup
from jobletd.backup.restoring import restore
from jobletd.backup.service_restoring import restore_with_service


@dataclass(frozen=True, slots=True)
class Target:
    """Where to. file: or one with the time as its name in ``directory``, or beside the daemon's own. keep: how many stay in
    that directory, of which the one that is made was read back."""

    file: str | None = None
    directory: str | None = None
    keep: int | None = None


def back_up(target: Target, config: str | None, env: Mapping[str, str], options: BackupOptions) -> None:
    """Raises JobletError."""
    if target.file and target.directory:
        raise BackupError("give FILE or --directory, not both", where="joblet backup")
    if target.keep and not target.directory:
        raise BackupError("--keep needs --directory, one for these backups alone", where="joblet backup")
    path = config_path(config, env)
    loaded = load_server_config(config, env)
    now_ns = SystemClock().wall_ns()
    file = target.file
    if file is None:
        directory = os.path.abspath(target.directory or backup_directory(loaded))
        os.makedirs(directory, 0o700, exist_ok=True)
        file = f"{directory}/{name_of(now_ns)}"
    made = make_backup(loaded, path, file, now_ns, options)
    if target.keep:
        verify(made.path)
        gone = keep_newest(os.path.dirname(made.path), target.keep)
        print(f"Read back whole; of the older ones {len(gone)} removed")
    print(f"{made.path}: {made.size_bytes} bytes, with the private keys of the certificates")
    print(f"Put it back with: joblet restore {quote(made.path)}")


def verify(path: str) -> None:
    """Read it back whole. Raises BackupError, and it is gone then: the older ones are better."""
    try:
        with tempfile.TemporaryDirectory(prefix=".verify-", dir=os.path.dirname(path)) as work:
            read_archive(path, work)
    except BackupError:
        os.unlink(path)
        raise


def put_back(file: str, config: str | None, env: Mapping[str, str], *, keep_config: bool, service: bool) -> None:
    """service: systemd's is stopped before and started after. Raises JobletError."""
    work = partial(restore, file, config, env, keep_config=keep_config)
    try:
        done = restore_with_service(work) if service else work()
    except OSError as error:
        raise BackupError(f"cannot be restored: {error.strerror}", where=str(error.filename or file)) from error
    print(f"Put back: the state of {done.host} of {done.created}, {done.jobs} jobs")
    if done.aside:
        print("What was there before is kept in:")
        print("\n".join(f"  {directory}" for directory in done.aside))
    for key in done.missing_keys:
        print(f"Secrets are sealed under key {key}, which is not here: put it at {done.key_path}, or apply them again")
    if service:
        print(f"{UNIT} runs on it")
        return
    print(f"Next: joblet serve --config {quote(done.config)}, or systemctl daemon-reload && systemctl start joblet")
