"""Manifests that the tests of this folder start from."""

from __future__ import annotations

from typing import Any

from joblet.manifest import JobManifest, ManifestError, ManifestErrors, jobs_of, read_manifests

FULL = """\
apiVersion: joblet/v1
kind: Job
metadata:
  name: nightly-report
  labels: {team: data}
  annotations: {owner: data@example.org}
spec:
  command: [python3, report.py, --date, yesterday]
  env: {TZ: UTC}
  workdir: /work/in
  files:
    - {path: report.py, mode: "0755", content: "print()"}
  limits:
    cpu: 150%
    cpus: "0-1"
    memory: 512Mi
    swap: 1Mi
    pids: 128
    io: {read: 10Mi, write: 10Mi, readOps: 500, writeOps: 500}
    disk: 1Gi
    logs: 1Mi
    enforcement: best-effort
  timeout: 30m
  attemptTimeout: 10m
  stop: {signal: SIGINT, grace: 5s}
  retry: {limit: 3, initial: 1s, max: 1m, onExitCodes: [1, 75], neverOnExitCodes: [2]}
  restart: Never
  isolation:
    network: host
    user: 1000
    hostname: reports
    capabilities: [NET_BIND_SERVICE]
    seccomp: default
    rootfs: /srv/root
  history: {keep: 3, for: 7d}
  suspend: true
"""


def manifest_text(spec: str, name: str = "a") -> str:
    """A manifest around the lines of a spec, which stand from line 6 on, indented by two."""
    head = f"apiVersion: joblet/v1\nkind: Job\nmetadata:\n  name: {name}\nspec:\n"
    return head + "".join(f"  {line}\n" for line in spec.splitlines())


def raw(**spec: Any) -> dict[str, Any]:
    """A manifest as plain data."""
    given = spec or {"command": ["true"]}
    return {"apiVersion": "joblet/v1", "kind": "Job", "metadata": {"name": "a"}, "spec": given}


def read(text: str | bytes, filename: str = "job.yml") -> tuple[JobManifest, ...]:
    return jobs_of(read_manifests(text.encode() if isinstance(text, str) else text, filename=filename))


def errors(text: str | bytes, filename: str = "job.yml") -> tuple[ManifestError, ...]:
    """The errors that reading a text gives."""
    try:
        read(text, filename)
    except ManifestErrors as found:
        return found.errors
    return ()


def lines(text: str | bytes, filename: str = "job.yml") -> list[str]:
    return [str(error) for error in errors(text, filename)]
