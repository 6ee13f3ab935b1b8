"""The README of examples/gitops, played word for word: each block of commands, and what is said to be its output."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.git_repository import ENVIRONMENT
from tests.integration.host import BIN, eventually, job_host
from tests.timing import PATIENCE

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMIT = re.compile(r"\b[0-9a-f]{12}\b")
HOME = "/srv/fleet"


@pytest.mark.native_only(reason="a reader's own machine is what this is about; each of its steps has a test of its own")
def test_the_readme_does_what_it_says() -> None:
    blocks = BLOCK.findall((ROOT / "examples/gitops/README.md").read_text())
    with job_host() as host:
        home = host.root.parent / "fleet"
        programs = host.root.parent / "bin"
        programs.mkdir()
        (programs / "rnx").symlink_to(BIN / "rnx")
        environment = {
            **ENVIRONMENT,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "RNX_CONFIG": str(host.root / "config/rnx-config.yml"),
        }
        said = ""
        for language, text in blocks:
            if language == "text":
                for line in text.splitlines():
                    assert COMMIT.sub("COMMIT", line) in COMMIT.sub("COMMIT", said), (line, said, host.log_tail())
                continue
            script = text.replace("examples/gitops", str(ROOT / "examples/gitops")).replace(HOME, str(home))
            done = subprocess.run(
                ["sh", "-eu", "-c", script],
                cwd=home if home.exists() else host.root,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=60 * PATIENCE,
                check=False,
            )
            said = done.stdout
            assert done.returncode == 0, (text, said, host.log_tail())
            if (home / "fleet.yml").exists():
                (home / "fleet.yml").write_text(
                    (home / "fleet.yml").read_text().replace(f"file://{HOME}", f"file://{home}")
                )
        eventually(lambda: host.rnx("get", "gitsources", "-o", "name").out == "", what="nothing is followed any more")
        eventually(lambda: host.rnx("get", "-o", "name").out == "", what="no job any more")
        shutil.rmtree(home)
