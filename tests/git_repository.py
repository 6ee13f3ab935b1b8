"""A real git repository for tests: somebody's clone and its bare origin, made by git without the machine's own settings."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

AUTHOR = "Ann Author <ann@example.org>"
JOB = (
    "apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec: {{command: {command}, stop: {{grace: 0s}}}}\n"
)
ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if not key.startswith("GIT_")},
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_DATE": "2026-01-02T03:04:05Z",
    "GIT_COMMITTER_DATE": "2026-01-02T03:04:05Z",
    "GIT_AUTHOR_NAME": "Joblet Tests",
    "GIT_AUTHOR_EMAIL": "tests@example.org",
    "GIT_COMMITTER_NAME": "Joblet Tests",
    "GIT_COMMITTER_EMAIL": "tests@example.org",
}


def job(name: str, command: str = '[sleep, "600"]') -> str:
    return JOB.format(name=name, command=command)


class Repository:
    """``write`` and ``remove`` change the clone, ``commit`` commits and pushes; the origin is what is followed.

    Without an origin of its own the clone itself is followed, which saves a test a second.
    """

    def __init__(self, clone: Path, origin: Path | None = None) -> None:
        self.clone = clone
        self.origin = origin or clone / ".git"
        self.run("init", "--quiet", "--initial-branch=main", clone, where=None)
        if origin is not None:
            self.run("init", "--quiet", "--bare", "--initial-branch=main", origin, where=None)
            self.run("remote", "add", "origin", origin)

    @property
    def url(self) -> str:
        return f"file://{self.origin}"

    def run(self, *arguments: str | Path, where: Path | str | None = "clone") -> str:
        directory = self.clone if where == "clone" else where
        at = () if directory is None else ("-C", str(directory))
        command = ["git", *at, "-c", "protocol.file.allow=always", *map(str, arguments)]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout.strip()

    def write(self, files: Mapping[str, str | bytes]) -> None:
        for name, content in files.items():
            path = self.clone / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def remove(self, *names: str) -> None:
        self.run("rm", "--quiet", "-r", "--", *names)

    def commit(self, files: Mapping[str, str | bytes] | None = None, *options: str, author: str = AUTHOR) -> str:
        """Commit everything as it is now, with these files, and push it by force. Returns the commit's id."""
        self.write(files or {})
        self.run("add", "--all")
        self.run("commit", "--quiet", "--allow-empty", f"--author={author}", "--message=A change", *options)
        self.push()
        return self.run("rev-parse", "HEAD")

    def push(self, *refs: str) -> None:
        if self.origin.is_relative_to(self.clone):
            return
        self.run("push", "--quiet", "--force", "origin", *(refs or ("HEAD",)))
