"""Write schemas/job.v1.schema.json from the manifest's models; with --check only say whether it is current."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from joblet.manifest.schema import schema_text

SCHEMA = Path(__file__).resolve().parent.parent / "schemas" / "job.v1.schema.json"


def main() -> int:
    """Exit 0 if the file is, or now is, current; 1 if --check finds that it is not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the file is out of date")
    text = schema_text()
    if parser.parse_args().check:
        if SCHEMA.is_file() and SCHEMA.read_text(encoding="utf-8") == text:
            return 0
        print(f"{SCHEMA.name} is out of date: run python tools/generate_schema.py", file=sys.stderr)
        return 1
    SCHEMA.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
