"""The tree that packages and ``make install`` put in place: Joblet and its locked libraries, for all Pythons at once.

What is compiled for one Python carries its version in the file's name, so that wheels for several lie side by side and share
the rest. See docs/decisions/0037. The same commit gives the same bytes.
"""

from __future__ import annotations

import datetime
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.utils import format_datetime
from pathlib import Path

import joblet

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
MAINTAINER = "Joblet maintainers <maintainers@joblet.invalid>"
PREFIX = "/opt/joblet"
DOCUMENTS = "/usr/share/doc/joblet"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
# As Debian calls an architecture, and as wheels do.
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
PLATFORMS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")  # glibc 2.28: Debian 10, RHEL 8 and later
# What pip writes about one wheel; it differs between Pythons and nothing reads it at run time.
ABOUT_WHEELS = re.compile(r"[^/]+\.dist-info/(RECORD|WHEEL|INSTALLER|entry_points\.txt|sboms/.*)")
COMMANDS = {"joblet": "jobletd.cli", "rnx": "rnx.main"}
# What lies elsewhere: place on the target, and file of this repository.
ELSEWHERE = {
    "/usr/lib/systemd/system/joblet.service": "systemd/joblet.service",
    "/usr/lib/systemd/system/joblet.slice": "systemd/joblet.slice",
    "/usr/lib/sysusers.d/joblet.conf": "systemd/joblet.sysusers",
    "/usr/lib/tmpfiles.d/joblet.conf": "systemd/joblet.tmpfiles",
    f"{DOCUMENTS}/copyright": "packages/copyright",
    "/usr/share/lintian/overrides/joblet": "packages/lintian-overrides",
    "/etc/logrotate.d/joblet": "systemd/joblet.logrotate",
}
# What a tree and the packages are made from.
SOURCES = (
    *("joblet", "reconciler/jobletd", "cli/rnx", "packages", "systemd", "scripts", "manifests"),
    *("tools/package.py", "tools/package_tree.py", "requirements.lock", "pyproject.toml", "README.md", "CHANGELOG.md"),
)
LINKED = ("joblet", "rnx", "certs_gen_embedded.sh")  # from /usr/bin
# -I -S: neither the user's nor the distribution's packages nor the environment have a say in what a daemon of root's imports.
COMMAND = """\
#!{prefix}/lib/python3 -IS
import sys

sys.path.insert(0, "{prefix}/lib/site-packages")
from {module} import main

sys.exit(main())
"""


class BuildError(Exception):
    """The tree cannot be built."""


def build_tree(arch: str, prefix: str = PREFIX) -> Path:
    """Build it below build/, unless it is there; returns the directory that stands for the target's root. Raises BuildError."""
    target = BUILD / f"tree-{arch}-{sources_key(arch, prefix)}"
    if target.is_dir():
        return target
    for old in BUILD.glob(f"tree-{arch}-*"):
        shutil.rmtree(old)
    new = BUILD / f"tree-{arch}-new"
    fill(new, arch, prefix)
    new.rename(target)
    return target


def fill(target: Path, arch: str, prefix: str) -> None:
    """All that belongs into the tree. Raises BuildError."""
    site = target / prefix.lstrip("/") / "lib/site-packages"
    site.mkdir(parents=True)
    for wheel in (*fetched_wheels(arch), own_wheel()):
        unpack(wheel, site)
    put_files(target, prefix)
    settle(target)


def put_files(target: Path, prefix: str) -> None:
    """What is there beside the libraries."""
    place = target / prefix.lstrip("/")
    for name, module in COMMANDS.items():
        write(place / "bin" / name, COMMAND.format(prefix=prefix, module=module), 0o755)
    write(place / "bin/certs_gen_embedded.sh", source("scripts/certs_gen_embedded.sh"), 0o755)
    write(place / "lib/setup.sh", source("packages/setup.sh").replace("@PREFIX@", prefix), 0o755)
    write(place / "lib/delegate-subgroup.conf", source("systemd/delegate-subgroup.conf"), 0o644)
    for manifest in sorted((ROOT / "manifests").glob("*.yml")):
        write(place / "lib/manifests" / manifest.name, source(f"manifests/{manifest.name}"), 0o644)
    for where, name in ELSEWHERE.items():
        write(target / where.lstrip("/"), source(name).replace(PREFIX, prefix), 0o644)
    (target / "usr/bin").mkdir()
    for name in LINKED:
        (target / "usr/bin" / name).symlink_to(f"{prefix}/bin/{name}")
    for where, text in (("CHANGELOG.md.gz", source("CHANGELOG.md")), ("changelog.gz", debian_changelog())):
        (target / DOCUMENTS.lstrip("/") / where).write_bytes(gzip.compress(text.encode(), mtime=0))


def sources_key(*more: str) -> str:
    """Changes with all that goes into a tree."""
    digest = hashlib.sha256(repr((more, PYTHONS, PLATFORMS, source_date())).encode())
    for name in SOURCES:
        place = ROOT / name
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(ROOT)} {path.stat().st_mode}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def fetched_wheels(arch: str) -> list[Path]:
    """All that requirements.lock names, for each Python; fetched once for each lock. Raises BuildError."""
    lock = ROOT / "requirements.lock"
    key = hashlib.sha256(lock.read_bytes() + repr((PYTHONS, PLATFORMS)).encode()).hexdigest()[:16]
    directory = BUILD / f"wheels-{arch}-{key}"
    if not directory.is_dir():
        new = directory.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        for python in PYTHONS:
            fetch(arch, python, lock, new)
        new.rename(directory)
    return sorted(directory.glob("*.whl"))


def fetch(arch: str, python: str, lock: Path, directory: Path) -> None:
    platforms = [option for platform in PLATFORMS for option in ("--platform", f"{platform}_{MACHINES[arch]}")]
    command = [
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-qq", "--no-deps"),
        *("--require-hashes", "--only-binary=:all:", "--implementation", "cp", "--python-version", python),
        *(*platforms, "--requirement", str(lock), "--dest", str(directory)),
    ]
    if subprocess.run(command, check=False).returncode:
        raise BuildError(f"requirements.lock has no wheels for Python {python} on {arch}, or they cannot be fetched")


def own_wheel() -> Path:
    """Joblet itself, built as ``make build`` does."""
    directory = BUILD / "own"
    shutil.rmtree(directory, ignore_errors=True)
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(directory)],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(source_date())},
    )
    if built.returncode:
        raise BuildError(f"the wheel of Joblet itself cannot be built:\n{built.stderr}")
    (wheel,) = directory.glob("*.whl")
    return wheel


def unpack(wheel: Path, site: Path) -> None:
    """Put a wheel's files in place. Raises BuildError if one of them is there with other contents."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            if member.is_dir() or ABOUT_WHEELS.fullmatch(member.filename):
                continue
            path = site / member.filename
            if site not in path.resolve().parents or ".data/" in member.filename:
                raise BuildError(f"{wheel.name}: {member.filename} does not belong below site-packages")
            content = archive.read(member)
            if path.exists() and path.read_bytes() != content:
                raise BuildError(f"{wheel.name}: {member.filename} differs from that of another Python's wheel")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def debian_changelog() -> str:
    """In the one form that Debian's tools read."""
    date = format_datetime(datetime.datetime.fromtimestamp(source_date(), datetime.UTC))
    return (
        f"joblet ({joblet.__version__}) stable; urgency=medium\n\n  * {DOCUMENTS}/CHANGELOG.md.gz tells what changed.\n\n"
        f" -- {MAINTAINER}  {date}\n"
    )


def source(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def write(path: Path, content: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    path.chmod(mode)


def settle(tree: Path) -> None:
    """Modes and times that do not depend on who builds, where and when."""
    executable = {"bin", "setup.sh"}
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            runs = path.is_dir() or not executable.isdisjoint((path.parent.name, path.name))
            path.chmod(0o755 if runs else 0o644)
            os.utime(path, (source_date(), source_date()))


def source_date() -> int:
    """Seconds since 1970 of the sources: SOURCE_DATE_EPOCH, else their last commit's time. Raises BuildError."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    found = subprocess.run(
        ["git", "-C", str(ROOT), "log", "-1", "--format=%ct", "--", *SOURCES],
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode or not found.stdout.strip():
        raise BuildError("the sources' date is unknown: build in a git clone, or set SOURCE_DATE_EPOCH")
    return int(found.stdout)
