"""Manifests, in YAML and JSON. What is accepted also reads the same after it was written out."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import yaml

from joblet.manifest import ManifestErrors, SecretManifest, read_manifests, to_yaml
from joblet.manifest.explanation import all_fields
from tests.faults.fuzz.reader import Reader
from tests.guest.boot import REPOSITORY
from tests.unit.manifest.samples import FULL

# Each construct of YAML once, in a place where a manifest may have it.
CONSTRUCTS = (
    "%YAML 1.2\n---\n{}...\n# the end\n",
    "{}---\n{}",
    "{}    note: &anchor |-\n      kept\n       as it is\n    same: *anchor\n",
    "{}    folded: >+\n      one\n      line\n\n    plain: several\n      lines of\n      text\n",
    "{}    'single ''quoted''': \"double \\x41\\u00e4\\U0001F600\\n\\\n      joined\"\n",
    '{}    ? long key\n    : value\n    flow: "{{"\n',
    "{}    tagged: !!str 1\n    typed: !<tag:yaml.org,2002:str> x\n    !local y: z\n",
    "{}    <<: {{a: b}}\n    ~: null\n    yes: no\n    0o17: 0x1f\n    1.5: .inf\n    2026-01-02: x\n",
)
HEAD = "apiVersion: joblet/v1\nkind: Job\nmetadata:\n  name: a\n  annotations:\n    a: b\n{}spec:\n  command: [x]\n"


def make(_: Path) -> Reader:
    return Reader(read=read, samples=[*samples(), *suite()], tokens=tokens())


def read(data: bytes) -> bool:
    name = "job.json" if zlib.crc32(data) % 8 == 0 else "job.yml"
    try:
        manifests = read_manifests(data, filename=name)
    except ManifestErrors as found:
        for error in found.errors:
            assert error.line >= 1 and error.column >= 1 and error.message, error
            str(error).encode()  # it is logged, stored and sent
        return False
    for manifest in manifests:
        if not isinstance(manifest, SecretManifest):  # whose values are never written out
            assert read_manifests(to_yaml(manifest).encode(), filename="again.yml") == (manifest,)
    return True


def samples() -> Iterator[bytes]:
    yield FULL.encode()
    for directory in ("examples", "tests/hostile/attacks", "tests/hostile/refused"):
        for path in sorted((REPOSITORY / directory).rglob("*.yml")):
            yield path.read_bytes()
    for path in sorted((REPOSITORY / "examples").glob("*.yml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield json.dumps(document, indent=1).encode()
    for construct in CONSTRUCTS:
        head = HEAD.format("")
        if construct.startswith("{}    "):
            yield HEAD.format(construct.removeprefix("{}").replace("{{", "{").replace("}}", "}")).encode()
        else:
            yield construct.replace("{}", head).encode()


def suite() -> Iterator[bytes]:
    """The YAML test suite's inputs, if JOBLET_YAML_SUITE names the directory of its npm package."""
    if directory := os.environ.get("JOBLET_YAML_SUITE"):
        for path in sorted(Path(directory, "data").glob("????.js")):
            text = path.read_text()
            for case in json.loads(text[text.index("export default") + len("export default") :])["cases"]:
                yield case["yaml"].encode("utf-8", "surrogatepass")


def tokens() -> list[bytes]:
    words = {part for field in all_fields() for part in field.path.split(".")}
    marks = (
        "---\n",
        "...\n",
        "&a ",
        "*a",
        "!!binary ",
        "|2-\n",
        ">\n",
        "? ",
        ": ",
        "- ",
        "{",
        "}",
        "[",
        "]",
        "%TAG ! x\n",
    )
    return [word.encode() for word in (*sorted(words), *marks, "1h30m", "512Mi", "150%", "0755", "\t", "#")]
