"""An arm64 Debian for ``make machine-test ARCH=arm64``: packages unpacked into a directory, with our locked libraries beside.

This machine's dpkg has no part in it: apt works on directories of its own. No script of a package runs, as nothing of that
architecture can here; what tests need of it is done below, or at the guest's start. It lies below build/, and is made again when
what it is made from changes.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.guest.boot import REPOSITORY, GuestError

MIRROR = "http://deb.debian.org/debian"
SUITE = "bookworm"
PYTHON = "3.11"  # of that suite
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
# tiny-initramfs: the kernel wants one of those that make an initramfs, and this one brings nothing along.
PACKAGES = (
    *("linux-image-cloud-arm64", "tiny-initramfs", "busybox-static", "kmod", "base-files", "base-passwd", "libc-bin"),
    *("bash", "dash", "coreutils", "findutils", "grep", "sed", "tar", "gzip", "bzip2", "xz-utils", "diffutils", "mawk"),
    *("hostname", "util-linux", "mount", "e2fsprogs", "login", "passwd", "procps", "debianutils", "perl-base"),
    *(
        "python3",
        "libseccomp2",
        "libstdc++6",
        "iproute2",
        "nftables",
        "netbase",
        "openssl",
        "ca-certificates",
        "tzdata",
    ),
    *("git", "openssh-client", "gpg", "strace", "ncurses-bin"),
)
ARMHF = "armhf"  # in the root: a 32-bit Python, for the compatibility ABI
PACKAGES_ARMHF = ("python3.11-minimal", "libpython3.11-stdlib", "dash", "coreutils")
MERGED = ("bin", "sbin", "lib")  # links into /usr, which no package brings
VENV = "venv"  # in the root, too; it goes where the clone has the one of this machine


def arm64_root() -> Path:
    """The root's directory, made if it is not there. Raises GuestError."""
    made_from = (Path(__file__), REPOSITORY / "requirements-dev.lock")
    key = hashlib.sha256(b"".join(path.read_bytes() for path in made_from)).hexdigest()[:16]
    build = REPOSITORY / "build"
    directory = build / f"arm64-root-{key}"
    if not directory.is_dir():
        build.mkdir(exist_ok=True)
        for old in build.glob("arm64-root-*"):
            shutil.rmtree(old)
        with tempfile.TemporaryDirectory(prefix="arm64-root-", dir=build) as name:
            new = Path(name) / "root"
            fill(new)
            new.rename(directory)
    return directory


def fill(root: Path) -> None:
    """All that the guest finds. Raises GuestError."""
    unpack("arm64", PACKAGES, root)
    unpack("armhf", PACKAGES_ARMHF, root / ARMHF)
    for name in ("passwd", "group"):
        shutil.copy(root / f"usr/share/base-passwd/{name}.master", root / "etc" / name)
    shutil.copy(root / "usr/share/libc-bin/nsswitch.conf", root / "etc/nsswitch.conf")
    (root / "etc/hosts").write_text("127.0.0.1 localhost guest\n::1 localhost\n")
    (root / "etc/localtime").symlink_to("/usr/share/zoneinfo/Etc/UTC")
    (root / "usr/bin/awk").symlink_to("mawk")
    certificates = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    (root / "etc/ssl/certs/ca-certificates.crt").write_text("".join(path.read_text() for path in certificates))
    # The index of modules, for modprobe here and there.
    (release,) = (path.name for path in (root / "usr/lib/modules").iterdir())
    called(["/sbin/depmod", "--basedir", str(root), release])
    make_environment(root / VENV)


def unpack(architecture: str, packages: tuple[str, ...], root: Path) -> None:
    """The packages and what they depend on. Raises GuestError."""
    for name in MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    with tempfile.TemporaryDirectory(prefix="apt-", dir=root.parent) as name:
        for package in fetched(architecture, packages, Path(name)):
            extract(package, root)


def fetched(architecture: str, packages: tuple[str, ...], apt: Path) -> list[Path]:
    """Their files, by an apt that knows of nothing but this directory. Raises GuestError."""
    if not KEYRING.exists():
        raise GuestError(f"there is no {KEYRING} (apt-get install debian-archive-keyring)")
    for below in ("etc/apt/preferences.d", "etc/apt/apt.conf.d", "var/lib/dpkg"):
        (apt / below).mkdir(parents=True)
    for below in ("var/lib/apt/lists/partial", "var/cache/apt/archives/partial"):
        (apt / below).mkdir(parents=True)
    status = apt / "var/lib/dpkg/status"
    status.touch()
    (apt / "etc/apt/sources.list").write_text(f"deb [signed-by={KEYRING}] {MIRROR} {SUITE} main\n")
    settings = {
        "Dir": apt,
        "Dir::State::status": status,
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
    }
    options = [text for key, value in settings.items() for text in ("-o", f"{key}={value}")]
    called(["apt-get", *options, "-qq", "update"])
    called(["apt-get", *options, "-qq", "-y", "install", "--download-only", *packages])
    return sorted((apt / "var/cache/apt/archives").glob("*.deb"))


def make_environment(venv: Path) -> None:
    """What tools/bootstrap makes, for the guest's Python: the locked libraries, and this clone as an editable install."""
    site = venv / f"lib/python{PYTHON}/site-packages"
    platforms = [option for platform in PLATFORMS for option in ("--platform", platform)]
    called(
        [
            *(
                sys.executable,
                "-m",
                "pip",
                "--disable-pip-version-check",
                "install",
                "-qq",
                "--no-deps",
                "--no-compile",
            ),
            *("--require-hashes", "--only-binary=:all:", "--implementation", "cp", "--python-version", PYTHON),
            *(*platforms, "--requirement", str(REPOSITORY / "requirements-dev.lock"), "--target", str(site)),
        ]
    )
    (venv / "bin").mkdir()
    for name in ("python", "python3", f"python{PYTHON}"):
        (venv / "bin" / name).symlink_to(f"/usr/bin/python{PYTHON}")
    (venv / "pyvenv.cfg").write_text(f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {PYTHON}\n")
    own = Path(sys.prefix)
    for path in own.glob("lib/python*/site-packages/*joblet*"):
        (shutil.copytree if path.is_dir() else shutil.copy)(path, site / path.name)
    for name in ("joblet", "rnx"):
        shutil.copy(own / "bin" / name, venv / "bin" / name)


def extract(package: Path, root: Path) -> None:
    """Its files. dpkg-deb --extract would put directories in the place of the links into /usr. Raises GuestError."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as content:
        done = subprocess.run(["tar", "-C", str(root), "--keep-directory-symlink", "-xf", "-"], stdin=content.stdout)
    if done.returncode or content.returncode:
        raise GuestError(f"{package.name} cannot be unpacked")


def called(command: list[str]) -> None:
    """Raises GuestError."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise GuestError(f"{' '.join(command[:2])} failed: {(done.stderr or done.stdout).strip()}")
