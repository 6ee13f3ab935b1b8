"""The packages: what is in them, what Debian says of them, and a real installation into a copy of this machine's root."""

from __future__ import annotations

import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

import joblet
from tests.integration.host import PATIENCE
from tools import package_tree
from tools.package import build_package, own_arch

pytestmark = [
    pytest.mark.native_only(reason="packages are built where their parts can be fetched; tests/systemd installs them"),
    pytest.mark.timeout(600),  # the first one builds the package, and may have to fetch the libraries
]
REPOSITORY = Path(__file__).resolve().parents[2]
# Half of the machine's root, copied on write: dpkg's database, users and places are real, and gone afterwards.
COPY = """
set -eu
mount -t tmpfs -o mode=755 copy {stage}
mkdir {stage}/upper {stage}/work {stage}/root
mount -t overlay -o lowerdir=/,upperdir={stage}/upper,workdir={stage}/work root {stage}/root
mount -t proc proc {stage}/root/proc
mount --rbind /dev {stage}/root/dev
mount -t tmpfs run {stage}/root/run
mount -t tmpfs -o mode=1777 tmp {stage}/root/tmp
cp {deb} {stage}/root/tmp/joblet.deb
exec chroot {stage}/root /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -euc {script}
"""


@pytest.fixture(scope="module")
def deb() -> Path:
    return build_package("deb", own_arch())


def run(*command: str | Path) -> str:
    ended = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=120 * PATIENCE, check=False, cwd=REPOSITORY
    )
    assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
    return ended.stdout


def in_a_copy_of_the_machine(deb: Path, stage: Path, script: str) -> str:
    quoted = "'" + script.replace("'", "'\\''") + "'"
    return run("unshare", "--mount", "sh", "-c", COPY.format(stage=stage, deb=deb, script=quoted))


def files(deb: Path) -> dict[str, tarfile.TarInfo]:
    with (
        subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as archive,
    ):
        return {member.name.removeprefix("."): member for member in archive}


def test_everything_in_the_package_is_roots_and_nothing_can_be_written_by_others(deb: Path) -> None:
    found = files(deb)
    assert all((one.uid, one.gid, one.uname, one.gname) == (0, 0, "root", "root") for one in found.values())
    programs = {name for name, one in found.items() if one.isfile() and one.mode != 0o644}
    assert programs == {f"/opt/joblet/{name}" for name in PROGRAMS}
    assert {found[name].mode for name in programs} == {0o755}
    assert {one.mode for one in found.values() if one.isdir()} == {0o755}


PROGRAMS = ("bin/joblet", "bin/rnx", "bin/certs_gen_embedded.sh", "lib/setup.sh")


def test_the_package_has_all_that_the_service_needs_and_nothing_elsewhere(deb: Path) -> None:
    outside = {name for name, one in files(deb).items() if not name.startswith("/opt/joblet/") and not one.isdir()}
    assert outside == {
        *package_tree.ELSEWHERE,
        *(f"{package_tree.DOCUMENTS}/{name}" for name in ("changelog.gz", "CHANGELOG.md.gz")),
        *(f"/usr/bin/{name}" for name in package_tree.LINKED),
    }
    control = run("dpkg-deb", "--field", deb)
    assert f"Version: {joblet.__version__}\n" in control
    for package in ("python3 (>= 3.11)", "libseccomp2", "e2fsprogs", "mount", "nftables"):
        assert package in control
    assert run("dpkg-deb", "--info", deb, "conffiles").split() == ["/etc/logrotate.d/joblet"]


def test_lintian_finds_no_error(deb: Path) -> None:
    run("lintian", "--allow-root", "--fail-on", "error", deb)


def test_there_are_libraries_for_every_python_on_both_architectures() -> None:
    for arch, machine in (("amd64", 62), ("arm64", 183)):
        wheels = package_tree.fetched_wheels(arch)
        compiled = {}
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                compiled.update({name: archive.read(name) for name in archive.namelist() if ".so" in name})
        assert {int.from_bytes(content[18:20], "little") for content in compiled.values()} == {machine}, arch
        for name in [one for one in compiled if ".cpython-311-" in one]:
            for python in package_tree.PYTHONS[1:]:
                assert name.replace(".cpython-311-", f".cpython-{python.replace('.', '')}-") in compiled


def test_the_same_sources_give_the_same_bytes() -> None:
    """The other wheels are the same by their hashes. Of the two packages, the one that is made faster stands for both."""
    assert package_tree.own_wheel().read_bytes() == package_tree.own_wheel().read_bytes()
    rpm = build_package("rpm", own_arch())
    first = rpm.read_bytes()
    rpm.unlink()
    assert build_package("rpm", own_arch()).read_bytes() == first


def test_what_is_installed_works_with_the_distributions_python_and_goes_again(deb: Path, tmp_path: Path) -> None:
    output = in_a_copy_of_the_machine(deb, tmp_path, """
        export JOBLET_SERVER_ADDRESS=jobs.example.org
        dpkg --install /tmp/joblet.deb
        unset JOBLET_SERVER_ADDRESS
        joblet config check
        joblet certs show
        rnx --version
        stat -c "%a %U %n" /opt/joblet/config /opt/joblet/config/* /opt/joblet/certs /var/log/joblet
        getent passwd joblet
        grep address: /opt/joblet/config/rnx-config.yml
        before=$(cat /opt/joblet/config/*.yml | sha256sum)
        dpkg --install /tmp/joblet.deb
        [ "$before" = "$(cat /opt/joblet/config/*.yml | sha256sum)" ] && echo configuration kept
        dpkg --remove joblet
        [ "$before" = "$(cat /opt/joblet/config/*.yml | sha256sum)" ] && echo configuration kept after removal
        [ ! -e /opt/joblet/lib ] && [ ! -e /opt/joblet/bin ] && [ ! -e /usr/bin/rnx ] && echo programs gone
        dpkg --purge joblet
        [ ! -e /opt/joblet ] && [ ! -e /var/log/joblet ] && [ ! -e /etc/logrotate.d/joblet ] && echo all gone
    """)  # fmt: skip
    for line in ("configuration kept", "configuration kept after removal", "programs gone", "all gone"):
        assert line in output.splitlines(), output
    for line in ("700 root /opt/joblet/config", "600 root /opt/joblet/config/ca.key", "700 root /opt/joblet/certs"):
        assert line in output.splitlines(), output
    assert "/opt/joblet/config/joblet-config.yml: can be used" in output
    assert f"rnx {joblet.__version__}" in output
    assert "    address: jobs.example.org:50051" in output
    assert re.search(r"^joblet:x:\d+:\d+:Joblet:/opt/joblet:/usr/sbin/nologin$", output, re.MULTILINE)


def test_the_other_package_holds_the_same_files_and_asks_for_one_of_the_pythons(deb: Path) -> None:
    rpm = build_package("rpm", own_arch())
    listed = set(run("rpm", "--query", "--package", "--list", rpm).split("\n")) - {""}
    for_debian = {"/usr/share/lintian/overrides/joblet", f"{package_tree.DOCUMENTS}/changelog.gz"}
    assert {name for name in files(deb) if name.startswith("/opt/joblet/lib/site-packages/joblet/")} <= {
        *listed,
        *(f"{name}/" for name in listed),
    }
    assert {*package_tree.ELSEWHERE} - for_debian <= listed
    needed = run("rpm", "--query", "--package", "--requires", rpm).splitlines()
    assert "(python(abi) = 3.11 or python(abi) = 3.12 or python(abi) = 3.13 or python(abi) = 3.14)" in needed
    modes = run("rpm", "--query", "--package", "--queryformat", "[%{FILEUSERNAME}:%{FILEGROUPNAME}\n]", rpm).split()
    assert set(modes) == {"root:root"}


def test_a_tree_for_another_directory_names_it_everywhere(tmp_path: Path) -> None:
    package_tree.put_files(tmp_path / "tree", "/srv/joblet")
    unit = (tmp_path / "tree/usr/lib/systemd/system/joblet.service").read_text()
    assert "ExecStart=/srv/joblet/bin/joblet serve\n" in unit
    assert "/opt/joblet" not in unit
    assert (tmp_path / "tree/srv/joblet/bin/rnx").read_text().startswith("#!/srv/joblet/lib/python3 -IS\n")


def test_the_lists_of_what_jobs_need_agree(deb: Path) -> None:
    """tools/system-packages and the package name the same Debian packages, but for those that every machine has."""
    script = (REPOSITORY / "tools/system-packages").read_text()
    listed = {pair.split(":")[1] for pair in re.search(r"run=\((.*?)\n\)", script, re.DOTALL)[1].split() if ":" in pair}  # type: ignore[index]
    control = run("dpkg-deb", "--field", deb, "Depends", "Recommends")
    named = set(re.findall(r"[a-z][a-z0-9.-]+(?=[ ,\n]|$)", control))
    assert listed - named - {""} == {"util-linux"}
