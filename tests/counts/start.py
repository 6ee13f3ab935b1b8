"""What a start costs: modules of ``rnx --help``, allocations of the launcher and of the daemon when they are ready."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import joblet
from tests.timing import PATIENCE

REPOSITORY = Path(joblet.__file__).parent.parent
# What no help page needs, and what costs tens of milliseconds each.
HEAVY = frozenset(
    {
        *(
            "asyncio",
            "concurrent",
            "cryptography",
            "google",
            "grpc",
            "multiprocessing",
            "opentelemetry",
            "psutil",
            "pydantic",
        ),
        *("jobletd", "prometheus_client", "rich", "sqlite3", "ssl", "structlog", "textual", "watchfiles", "yaml"),
    }
)
_HELP = """
import atexit, json, os, sys
before = set(sys.modules)
{first}
def tell():
    modules = sorted(set(sys.modules) - before)
    os.write(2, json.dumps(modules).encode())
atexit.register(tell)
sys.argv = ["rnx", "--help"]
from rnx.main import main
sys.exit(main())
"""
# As the daemon starts it; what it has when it could take its first request, less the interpreter's own.
_LAUNCHER = """
import gc, sys
gc.disable()
before = sys.getallocatedblocks()
sys.path.insert(0, {root!r})
{first}
from joblet.sandbox import launcher
gc.collect()
print(sys.getallocatedblocks() - before)
"""
STANDARD = "the standard library"


def modules_of_help(first: str = "") -> Mapping[str, int]:
    """How many of each top-level package; those of the standard library together. first: a statement to begin with."""
    names = json.loads(_python(_HELP.format(first=first)).stderr)
    tops = Counter(name.partition(".")[0] for name in names)
    standard = {top: count for top, count in tops.items() if top in sys.stdlib_module_names and top not in HEAVY}
    others = {top: count for top, count in tops.items() if top not in standard and not top.startswith("_")}
    return {STANDARD: sum(standard.values()), **others}


def blocks_of_launcher(first: str = "") -> int:
    """Blocks that Python's allocator has given away for what a launcher is when it begins."""
    return int(_python(_LAUNCHER.format(root=str(REPOSITORY), first=first), "-I", "-S").stdout)


def _python(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        [sys.executable, *options, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        timeout=60 * PATIENCE,
    )
    assert ended.returncode == 0, ended.stderr
    return ended
