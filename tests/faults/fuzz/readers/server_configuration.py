"""The daemon's configuration file, and the variables that go before it."""

from __future__ import annotations

import zlib
from pathlib import Path

from joblet.config.errors import ConfigError
from joblet.config.server import load_server_config
from jobletd.setup import ADMIN, CONFIG, Setup, make_root
from tests.faults.fuzz.reader import Reader

VARIABLES = ("JOBLET_SERVER_ADDRESS", "JOBLET_MODE", "JOBLET_LOG_LEVEL", "JOBLET_LOG_FORMAT")


def make(directory: Path) -> Reader:
    return of_file(directory, CONFIG, load)


def load(path: str, data: bytes) -> None:
    number = zlib.crc32(data)
    # Variables hold no NUL; bytes that are not UTF-8 come as surrogates.
    value = data[:40].replace(b"\0", b"").decode(errors="surrogateescape")
    load_server_config(path, {VARIABLES[number % 4]: value} if number % 16 == 0 else {})


def of_file(directory: Path, name: str, load: object) -> Reader:
    """A reader of one of the files that ``joblet init`` writes."""
    make_root(Setup(str(directory / "root"), (), 50051))
    config = directory / "root/config"
    samples = [(config / other).read_bytes() for other in (name, CONFIG, ADMIN)]
    without_keys = b"".join(line for line in samples[0].splitlines(True) if not line.startswith((b"    ", b"      ")))
    path = directory / name
    path.touch(0o600)

    def read(data: bytes) -> bool:
        path.write_bytes(data)
        try:
            load(str(path), data)  # type: ignore[operator]
        except ConfigError as error:
            str(error).encode(errors="surrogateescape")
            return False
        return True

    tokens = [
        b": ",
        b"- ",
        b"\n",
        b"&a ",
        b"*a",
        b"!!python/object:os.system ",
        b"<<: ",
        b"0.0.0.0",
        b"::",
        b"null",
        b"true",
    ]
    return Reader(read=read, samples=[*samples, without_keys], tokens=tokens)
