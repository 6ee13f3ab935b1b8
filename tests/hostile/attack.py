"""An attack: a manifest in attacks/, with what it tries and what stops it, and what the tests add before it is applied.

The first comment says what it is about, ``# expect: PHASE [Reason]`` how its run ends. The annotations are what is tried,
by name, and what stops it; docs/SECURITY.md shows them as a table. Where the run ends by itself, its script prints
``HELD name: why`` for each of them; where it is ended from outside, that end is the proof. The label ``meanwhile`` names
a function of tests/hostile/meanwhile.py that looks on while the attack runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.timing import STRETCH

HERE = Path(__file__).parent
SHARED = HERE / "attempts.py"
SAME = "the same"
LINE = re.compile(r"^(HELD|BROKE) ([^\s:]+): (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Attack:
    """One manifest. attempts: what is tried, and what stops it. reason: empty for any."""

    path: Path
    summary: str
    phase: str
    reason: str
    attempts: Mapping[str, str]
    document: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.document["metadata"]["name"])

    @property
    def meanwhile(self) -> str:
        return str(self.document["metadata"].get("labels", {}).get("meanwhile", ""))

    @property
    def logs_bytes(self) -> int:
        return int(self.document["spec"]["limits"]["logs"].removesuffix("Mi")) << 20

    def manifest(self, targets: Mapping[str, str], *, longer: int = 1, **isolation: str) -> str:
        """As it is applied: with what the scripts share, and where on the host the things are that it is after.

        longer: so many times its own time. isolation: fields of spec.isolation that are to be others than it asks for.
        """
        spec = {**self.document["spec"]}
        if STRETCH * longer != 1:
            spec["timeout"] = f"{int(spec['timeout'].removesuffix('s')) * STRETCH * longer:.0f}s"
        if isolation:
            spec["isolation"] = {**spec.get("isolation", {}), **isolation}
        shared = {"path": SHARED.name, "content": SHARED.read_text()}
        env = {"PYTHONPATH": "/work", **{f"TARGET_{name}": value for name, value in targets.items()}}
        return json.dumps({**self.document, "spec": {**spec, "env": env, "files": [*spec.get("files", []), shared]}})


@dataclass(frozen=True)
class Verdict:
    """What an attack's script said of its attempts."""

    held: Mapping[str, str]
    broke: Mapping[str, str]


def verdict_of(output: str) -> Verdict:
    said: dict[str, dict[str, str]] = {"HELD": {}, "BROKE": {}}
    for word, name, what in LINE.findall(output):
        said[word][name] = what
    return Verdict(said["HELD"], said["BROKE"])


def read(path: Path) -> Attack:
    text = path.read_text()
    document = yaml.safe_load(text)
    expected = re.search(r"^# expect: (\S+) ?(\S*)$", text, flags=re.MULTILINE)
    assert expected, f"{path.name} does not say how it ends"
    summary = " ".join(line.removeprefix("# ") for line in text.partition("# expect:")[0].splitlines())
    attempts: dict[str, str] = {}
    last = ""
    for name, why in document["metadata"]["annotations"].items():
        last = attempts[name] = last if why == SAME else why
        assert last, f"{path.name}: {name} is the first, the same as what?"
    return Attack(path, summary, expected[1], expected[2], attempts, document)


@cache
def attacks() -> tuple[Attack, ...]:
    return tuple(read(path) for path in sorted((HERE / "attacks").glob("*.yml")))
