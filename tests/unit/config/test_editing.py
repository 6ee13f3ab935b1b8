"""Values are changed in a file's text, and nothing else."""

from __future__ import annotations

import pytest
import yaml

from joblet.config import ConfigError
from joblet.config.editing import with_values

PEM = "-----BEGIN X-----\nabc\n-----END X-----\n"
BLOCK = """\
# ours
version: "3.0"   # of the format
security:
  # do not lose
  serverCert: |
    old
    lines

  # between
  serverKey: |
    key
server:
  port: 1  # kept
"""


def edited(text: str, **values: str) -> str:
    changed = with_values(text, {tuple(key.split("__")): value for key, value in values.items()}, path="f.yml")
    before, after = yaml.safe_load(text), yaml.safe_load(changed)
    for key, value in values.items():
        node, old = after, before
        *sections, last = key.split("__")
        for section in sections:
            node, old = node[section], old.setdefault(section, {})
        assert node.pop(last) == value
        old.pop(last, None)
    assert before == after
    return changed


def test_a_block_is_replaced_and_comments_stay() -> None:
    text = edited(BLOCK, security__serverCert=PEM)
    assert "  serverCert: |\n    -----BEGIN X-----\n    abc\n    -----END X-----\n" in text
    for kept in ("# ours\n", "  # of the format\n", "  # do not lose\n", "  # between\n", "port: 1  # kept\n"):
        assert kept in text
    assert "old" not in text and "serverKey: |\n    key\n" in text


@pytest.mark.parametrize(
    "text",
    [
        BLOCK,
        BLOCK.rstrip("\n"),
        "version: a\nsecurity:\n    serverKey: |\n      key",
        "version: a\nsecurity: {serverKey: c, x: y}\n",
        "security:\n  serverKey: plain # why\n  x: y\n",
        'security:\n  serverKey: "quoted\\n"\n',
        "security:\n  serverKey: >-\n    folded\n    text\n  # comment\n\nversion: a\n",
        "security:\n  serverKey:\n  x: y\n",
        "security:\n  x: y\n",
        "version: a\n",
        "version: a",
        "# only\n# comments above\nversion: a\n\n# below\n",
    ],
)
@pytest.mark.parametrize("value", [PEM, "short", "no end\nof line", "", 'with "quotes"\n'])
def test_whatever_the_form_the_value_is_there_and_the_rest_as_before(text: str, value: str) -> None:
    once = edited(text, security__serverKey=value)
    assert edited(once, security__serverKey=value) == once
    assert [line for line in text.splitlines() if "#" in line and "why" not in line] == [
        line for line in once.splitlines() if "#" in line and "why" not in line
    ]


def test_what_cannot_be_changed_is_refused_with_its_place() -> None:
    with pytest.raises(ConfigError, match=r"f\.yml:2:3: security\.crl: cannot be changed"):
        with_values("security:\n  crl: [a]\n", {("security", "crl"): "x"}, path="f.yml")
    with pytest.raises(ConfigError, match="cannot be changed"):
        with_values("a: &x\n  b: c\nsecurity: *x\n", {("security", "b"): "x"}, path="f.yml")
