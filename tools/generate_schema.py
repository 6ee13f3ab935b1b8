"""Write schemas/<kind>.v1.schema.json from the manifests' models; with --check only say whether they are current."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from joblet.manifest.kinds import MODELS
from joblet.manifest.schema import schema_text

SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"


def main() -> int:
    """Exit 0 if all files are, or now are, current; 1 if --check finds one that is not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is out of date")
    check = parser.parse_args().check
    outdated = []
    for kind in MODELS:
        path, text = SCHEMAS / f"{kind.lower()}.v1.schema.json", schema_text(kind)
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
