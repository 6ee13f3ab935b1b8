"""The table of attacks in docs/SECURITY.md, from the manifests: what is tried, and what stops it.

python -m tests.hostile.table          write it
python -m tests.hostile.table --check  exit 1 if it is not current (a unit test holds the same)
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.hostile.attack import attacks
from tests.hostile.refusal import refusals

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/SECURITY.md"
BEGIN = "<!-- attacks: written by python -m tests.hostile.table -->\n"
END = "<!-- end of attacks -->\n"


def table() -> str:
    """All of it, one row an attempt."""
    lines = ["", "| attack | tried | what stops it |", "|---|---|---|"]
    for attack in attacks():
        manifest = f"[{attack.path.stem}](../tests/hostile/attacks/{attack.path.name})"
        for name, why in attack.attempts.items():
            lines.append(f"| {manifest} | {name} | {why} |")
            manifest = ""
    manifest = "[refused manifests](../tests/hostile/refused)"
    for refusal in refusals():
        lines.append(f"| {manifest} | {refusal.name} | {refusal.stopped_by} |")
        manifest = ""
    return "\n".join([*lines, "", ""])


def written(text: str) -> str:
    """The document with the table of now. Raises ValueError if it has no place for one."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no place for the table: {BEGIN.strip()} and {END.strip()} are missing")
    return before + begin + table() + end + after


def main() -> int:
    """Exit 0 if the document is, or now is, current; 1 if --check finds that it is not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the table is out of date")
    text = DOCUMENT.read_text(encoding="utf-8")
    current = written(text)
    if not parser.parse_args().check:
        DOCUMENT.write_text(current, encoding="utf-8")
    elif current != text:
        print(f"{DOCUMENT.name} is out of date: run python -m tests.hostile.table", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
