"""The client's configuration file."""

from __future__ import annotations

from pathlib import Path

from joblet.config.client import load_client_config
from jobletd.setup import ADMIN
from tests.faults.fuzz.reader import Reader
from tests.faults.fuzz.readers.server_configuration import of_file


def make(directory: Path) -> Reader:
    return of_file(directory, ADMIN, load)


def load(path: str, data: bytes) -> None:
    load_client_config(path, {"RNX_NODE": "default"}).node()
