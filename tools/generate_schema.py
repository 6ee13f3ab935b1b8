"""Write what is made from models: schemas/ (of manifests and of the daemon's configuration) and the tables of keys in
docs/CONFIGURATION.md; with --check only say whether they are current."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from joblet.config.reference import reference
from joblet.config.reference import schema_text as config_schema_text
from joblet.manifest.kinds import MODELS
from joblet.manifest.schema import schema_text
from joblet.notification import schema_text as notification_schema_text

ROOT = Path(__file__).resolve().parent.parent
CONFIGURATION = ROOT / "docs/CONFIGURATION.md"
BEGIN, END = "<!-- keys: made by tools/generate_schema.py -->\n", "<!-- end of keys -->\n"


def wanted() -> Iterator[tuple[Path, str]]:
    """Each file with what it has to hold."""
    for kind in MODELS:
        yield ROOT / f"schemas/{kind.lower()}.v1.schema.json", schema_text(kind)
    yield ROOT / "schemas/joblet-config.v3.schema.json", config_schema_text()
    yield ROOT / "schemas/notification.v1.schema.json", notification_schema_text()
    page = CONFIGURATION.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    yield CONFIGURATION, f"{before}{BEGIN}\n{reference()}{END}{after}"


def main() -> int:
    """Exit 0 if all files are, or now are, current; 1 if --check finds one that is not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is out of date")
    check = parser.parse_args().check
    outdated = []
    for path, text in wanted():
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        outdated.append(path.name)
        if not check:
            path.write_text(text, encoding="utf-8")
    if check and outdated:
        print(f"{', '.join(outdated)}: out of date: run python tools/generate_schema.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
