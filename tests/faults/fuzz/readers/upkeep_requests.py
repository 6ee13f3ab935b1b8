"""What a job sends to the socket by which it may ask for upkeep: only words of the table reach a command."""

from __future__ import annotations

import json
from pathlib import Path

from joblet.config.server import ServerConfig
from joblet.manifest import Upkeep
from jobletd.upkeep.calls import FLAGS, Asker, Refused, arguments_of, words_of
from tests.faults.fuzz.reader import Reader

KNOWN = {"backup", "--directory", "--keep", "certs", "rotate", "report", "/opt/joblet/state/backups/asker"}
REQUESTS: tuple[list[str], ...] = (
    ["backup"],
    ["backup", "--keep", "14", "--no-uploads"],
    ["rotate"],
    ["report", "--json"],
    [],
)


def make(directory: Path) -> Reader:
    config = ServerConfig.model_validate({"version": "3.0"})
    every = frozenset(map(str, Upkeep))
    asker = Asker("asker", "run", "asker-run-1", tuple(every))
    flags = {flag for flags in FLAGS.values() for flag in flags}

    def read(data: bytes) -> bool:
        try:
            arguments = arguments_of(words_of(data), asker, every, config)
        except Refused as error:
            str(error).encode(errors="surrogateescape")
            return False
        strange = [word for word in arguments if word not in KNOWN | flags]
        assert all(word.isascii() and word.isdecimal() and 1 <= int(word) <= 1000 for word in strange), arguments
        return True

    tokens = [b'"--keep"', b'"--config"', b'", "', b"[[", b"\\u0000", b"\\ud800", b"1e9", b"null", b'"1001"', b'"0"']
    return Reader(read=read, samples=[json.dumps(words).encode() for words in REQUESTS], tokens=tokens)
