"""``make debian-root``: jobs on a whole Debian made by debootstrap, as a directory and an archive: that it works, what it takes.

Needs debootstrap and a Debian mirror; ``--root DIR`` takes one that was made before.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.integration.host import Host, job_host

MIRROR = "http://deb.debian.org/debian"
SUITE = "bookworm"
SCRIPT = r"""
cat /etc/debian_version
perl -e 'printf "perl %vd\n", $^V'
apt-get --version | head -n 1
dpkg-query --show | wc -l
id -un
tar --version | head -n 1
echo changed >/etc/debian_version && rm /usr/bin/apt-get && touch /usr/new /var/lib/new && dpkg --audit
cat /etc/debian_version
test -e /usr/bin/apt-get || echo removed
"""
LINES = 8


def manifest(name: str, rootfs: Path) -> str:
    lines = "".join(f"    {line}\n" for line in SCRIPT.strip().splitlines())
    return (
        f"apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n"
        f"  isolation: {{rootfs: {rootfs}}}\n  script: |\n    #!/bin/sh -eu\n{lines}"
    )


def run(host: Host, name: str, rootfs: Path) -> list[str]:
    began = time.monotonic()
    host.apply(manifest(name, rootfs))
    ended = host.finished(name, within=300)
    took = time.monotonic() - began
    output = host.log(name).decode()
    if ended.phase != "COMPLETED":
        raise SystemExit(
            f"{name}: {ended.phase} ({ended.reason}) {ended.message}\n{output}{host.log(name, stream='stderr').decode()}"
        )
    inside = (ended.attempts[0].ended.ToNanoseconds() - ended.attempts[0].started.ToNanoseconds()) / 1e9
    print(f"{name:<16} {took:6.2f} s from apply to its end, {inside:5.2f} s of it the command's")
    return output.splitlines()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="make debian-root")
    parser.add_argument("--root", type=Path, help="a root file system that is there")
    chosen = parser.parse_args(arguments)
    with job_host() as host:
        root = host.root / "images/debian"
        root.parent.mkdir(exist_ok=True)
        began = time.monotonic()
        if chosen.root is not None:
            subprocess.run(["cp", "-a", "--reflink=auto", chosen.root, root], check=True)
        else:
            if shutil.which("debootstrap") is None:
                raise SystemExit("there is no debootstrap: apt-get install debootstrap")
            subprocess.run(
                ["debootstrap", "--variant=minbase", SUITE, root, MIRROR], check=True, stdout=subprocess.DEVNULL
            )
        print(f"{'made':<16} {time.monotonic() - began:6.2f} s")
        archive = host.root / "images/debian.tar.gz"
        subprocess.run(["tar", "-C", root, "-czf", archive, "."], check=True)
        print(f"{'archive':<16} {archive.stat().st_size >> 20:6} MiB")
        outputs = [
            run(host, f"{kind}-{number}", path)
            for kind, path in (("directory", root), ("archive", archive))
            for number in (1, 2)
        ]
        print("\n".join(outputs[0]))
        assert all(output == outputs[0] for output in outputs), outputs
        assert len(outputs[0]) == LINES and "changed" in outputs[0] and "removed" in outputs[0], outputs[0]
        assert (root / "usr/bin/apt-get").exists() and not (root / "usr/new").exists()
        assert (root / "etc/debian_version").read_text() != "changed\n"
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
