"""``make deb`` and ``make rpm``: both packages from one tree, by nfpm. Also ``make install``'s part before anything is installed.

tools/package.py deb|rpm [--arch amd64|arm64]...     into dist/; prints the paths
tools/package.py tree [--prefix DIR]                 into build/; prints the path
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import yaml

import joblet
from tools.package_tree import (
    BUILD,
    DOCUMENTS,
    ELSEWHERE,
    LINKED,
    MACHINES,
    MAINTAINER,
    PREFIX,
    ROOT,
    BuildError,
    build_tree,
    source_date,
)

DIST = ROOT / "dist"


def build_package(kind: str, arch: str) -> Path:
    """Build it, unless it is there and current. Raises BuildError."""
    tree = build_tree(arch)
    config = BUILD / f"nfpm-{kind}-{arch}.yaml"
    config.write_text(yaml.safe_dump(configuration(kind, arch, tree), sort_keys=False), encoding="utf-8")
    machine = MACHINES[arch] if kind == "rpm" else arch
    name = (
        f"joblet-{joblet.__version__}-1.{machine}.rpm" if kind == "rpm" else f"joblet_{joblet.__version__}_{arch}.deb"
    )
    made_from = BUILD / f"{name}.tree"
    if (DIST / name).is_file() and made_from.is_file() and made_from.read_text(encoding="utf-8") == tree.name:
        return DIST / name
    DIST.mkdir(exist_ok=True)
    built = subprocess.run(
        [
            Path(sys.executable).parent / "nfpm",
            "package",
            "--packager",
            kind,
            "--config",
            config,
            "--target",
            DIST / name,
        ],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(source_date())},
    )
    if built.returncode:
        raise BuildError(f"nfpm: {built.stderr.strip() or built.stdout.strip()}")
    made_from.write_text(tree.name, encoding="utf-8")
    return DIST / name


def configuration(kind: str, arch: str, tree: Path) -> dict[str, object]:
    """packages/nfpm.yaml with what depends on the build."""
    config: dict[str, object] = yaml.safe_load((ROOT / "packages/nfpm.yaml").read_text(encoding="utf-8"))
    config.update(
        maintainer=MAINTAINER, version=joblet.__version__, arch=arch, platform="linux", contents=contents(kind, tree)
    )
    if kind == "rpm":
        config["release"] = "1"
    return config


def contents(kind: str, tree: Path) -> list[dict[str, object]]:
    """Each file's place and kind. Directories of the distribution's own are named in neither package."""
    found: list[dict[str, object]] = [{"src": f"{tree}{PREFIX}", "dst": PREFIX, "type": "tree"}]
    for_debian = ("/usr/share/lintian/overrides/joblet", f"{DOCUMENTS}/changelog.gz")
    for place in (*ELSEWHERE, *(f"{DOCUMENTS}/{name}" for name in ("CHANGELOG.md.gz", "changelog.gz"))):
        if kind == "rpm" and place in for_debian:
            continue
        one: dict[str, object] = {"src": f"{tree}{place}", "dst": place, "file_info": {"mode": 0o644}}
        if place.startswith("/etc/"):
            one["type"] = "config|noreplace"
        found.append(one)
    found += [{"src": f"{PREFIX}/bin/{name}", "dst": f"/usr/bin/{name}", "type": "symlink"} for name in LINKED]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("deb", "rpm", "tree"))
    parser.add_argument("--arch", action="append", choices=tuple(MACHINES), help="default: this machine's")
    parser.add_argument("--prefix", default=PREFIX, help="of a tree; packages are for /opt/joblet")
    chosen = parser.parse_args()
    try:
        for arch in chosen.arch or [own_arch()]:
            if chosen.what == "tree":
                print(build_tree(arch, chosen.prefix))
            else:
                print(build_package(chosen.what, arch).relative_to(ROOT))
    except BuildError as error:
        print(f"tools/package.py: {error}", file=sys.stderr)
        return 1
    return 0


def own_arch() -> str:
    """Raises BuildError."""
    machine = os.uname().machine
    for arch, name in MACHINES.items():
        if machine in (arch, name):
            return arch
    raise BuildError(f"there are no packages for {machine}: --arch {' or '.join(MACHINES)}")


if __name__ == "__main__":
    sys.exit(main())
