"""``joblet backup`` and ``joblet restore``: what they say."""

from __future__ import annotations

import os
from collections.abc import Mapping
from shlex import quote

from joblet.clock import SystemClock
from joblet.config.server import config_path, load_server_config
from jobletd.backup.errors import BackupError
from jobletd.backup.keeper import backup_directory, name_of
from jobletd.backup.making import BackupOptions, make_backup
from jobletd.backup.restoring import restore


def back_up(file: str | None, config: str | None, env: Mapping[str, str], *, uploads: bool, secret_key: bool) -> None:
    """Raises JobletError."""
    path = config_path(config, env)
    loaded = load_server_config(config, env)
    now_ns = SystemClock().wall_ns()
    if file is None:
        directory = backup_directory(loaded)
        os.makedirs(directory, 0o700, exist_ok=True)
        file = f"{directory}/{name_of(now_ns)}"
    made = make_backup(loaded, path, file, now_ns, BackupOptions(uploads=uploads, secret_key=secret_key))
    print(f"{made.path}: {made.size_bytes} bytes, with the private keys of the certificates")
    print(f"Put it back with: joblet restore {quote(made.path)}")


def put_back(file: str, config: str | None, env: Mapping[str, str], *, keep_config: bool) -> None:
    """Raises JobletError."""
    try:
        done = restore(file, config, env, keep_config=keep_config)
    except OSError as error:
        raise BackupError(f"cannot be restored: {error.strerror}", where=str(error.filename or file)) from error
    print(f"Put back: the state of {done.host} of {done.created}, {done.jobs} jobs")
    if done.aside:
        print("What was there before is kept in:")
        print("\n".join(f"  {directory}" for directory in done.aside))
    for key in done.missing_keys:
        print(f"Secrets are sealed under key {key}, which is not here: put it at {done.key_path}, or apply them again")
    print(f"Next: joblet serve --config {quote(done.config)}, or systemctl start joblet")
