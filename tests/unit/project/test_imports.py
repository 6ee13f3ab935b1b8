"""Import rules that import-linter cannot see: what is loaded at run time, and on what kind of machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
CLIENT_MODULES = sorted(
    ".".join(path.relative_to(REPOSITORY / "cli").with_suffix("").parts).removesuffix(".__init__")
    for path in (REPOSITORY / "cli/rnx").rglob("*.py")
)

# A client's machine that is not Linux: the platform says so, and what is for Linux alone cannot be imported or called.
ON_A_MAC = """
import importlib, importlib.abc, os, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("jobletd", "joblet.sandbox", "joblet.cgroup")):
            raise ModuleNotFoundError(f"{name} is not there on this machine", name=name)

sys.meta_path.insert(0, Missing())
import asyncio, selectors, subprocess, zoneinfo  # Python's own modules choose by the real platform
for name in ("pidfd_open", "memfd_create", "unshare", "setns", "eventfd", "sched_setaffinity", "sched_getaffinity", "splice"):
    if hasattr(os, name):
        delattr(os, name)
sys.platform = "darwin"
"""


def python(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, check=False, cwd="/")


@pytest.mark.parametrize("module", ["joblet.sandbox.start", "joblet.sandbox.launcher", "joblet.sandbox.init"])
def test_the_launcher_and_the_init_load_nothing_heavy(module: str) -> None:
    code = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); import {module}, json; print(json.dumps(list(sys.modules)))"
    ended = python(code, "-I", "-S")
    assert ended.returncode == 0, ended.stderr
    loaded = {name.partition(".")[0] for name in json.loads(ended.stdout)}
    assert not loaded & {
        *(
            "asyncio",
            "contextlib",
            "dataclasses",
            "inspect",
            "logging",
            "pathlib",
            "selectors",
            "socket",
        ),
        *("subprocess", "tempfile", "threading", "typing"),
        *("google", "grpc", "pydantic", "ruamel", "structlog", "typer", "yaml"),
    }


def test_every_module_of_the_client_loads_where_there_is_no_linux() -> None:
    assert "rnx.main" in CLIENT_MODULES
    imports = "".join(f"importlib.import_module({name!r})\n" for name in CLIENT_MODULES if name != "rnx.__main__")
    ended = python(ON_A_MAC + imports)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_the_client_runs_where_there_is_no_linux(argument: str) -> None:
    ended = python(ON_A_MAC + f"sys.argv = ['rnx', {argument!r}]\nfrom rnx.main import main\nsys.exit(main())")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip()
