"""Whether the daemon's files are safe from others, looked at before it starts: it does not serve with keys that others know.

The configuration itself and the keys that it names were looked at when they were read, the spool's files are whenever they are.
"""

from __future__ import annotations

import os

from joblet.config.private_file import check_directory, check_private
from joblet.config.server import ServerConfig
from jobletd.backup.keeper import backup_directory, kept
from jobletd.backup.making import database_path, key_path
from jobletd.certs.directory import CA_KEYS, CertificateDirectory


def check_file_modes(config: ServerConfig, config_path: str) -> None:
    """Raises ConfigError with the command that mends it."""
    certificates = CertificateDirectory(config_path)
    for directory in (certificates.path, config.state.directory, config.logs.directory, config.run.directory):
        check_directory(directory)
    backups = backup_directory(config)
    check_directory(backups)
    for path in (
        key_path(config),
        *(database_path(config) + suffix for suffix in ("", "-wal")),
        certificates.file(CA_KEYS),
        *(certificates.client_files() if os.path.isdir(certificates.path) else ()),
        *((config.security.client_key_path,) if config.security.client_key_path else ()),
        *(f"{backups}/{name}" for name in kept(backups)),  # they hold the private keys of the certificates
    ):
        check_private(path)
