"""docs/SLURM.md from top to bottom: each command is carried out on the host that it is for."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobletd.executor.slurm_node.sweeping import KILLED
from tests.deployment_page import Block, sections
from tests.slurm.hosts import Site

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs/SLURM.md"
COMMANDS = Path(__file__).parent / "commands"
NODES = ("n1", "n2", "n3")
HOSTS = {"sh ctl": ("ctl",), "sh nodes": NODES, "sh all": ("ctl", *NODES)}
SECTIONS = sections(PAGE.read_text(encoding="utf-8"))
ALONE = "Without a shared directory"  # what changes over to that, after all else
BLOCKS = [block for section in SECTIONS for block in section.blocks]
LATER = [block for section in SECTIONS if ALONE in section.title for block in section.blocks]
# What a command has to show, by the line of the page that it begins with.
EXPECTED = {
    "slurmd -C": "NodeName=",
    "sinfo --Node --long": "idle",
    "joblet doctor": "cgroup",
    "joblet doctor --executor slurm": "munge",
    "rnx get nodes": "n3",
    "rnx run --wait --name first": "Status",
    "rnx apply -f oom.yml": "OOMKilled",
    "rnx run --wait --name far": "Slurm Job",
}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Hosts on which packages have been installed, and nothing more."""
    site = Site(["ctl", *NODES])
    try:
        for host in site.hosts.values():
            for directory, user in (
                ("etc/munge", "munge"),
                ("var/lib/munge", "munge"),
                ("var/log/munge", "munge"),
                ("var/lib/slurm/slurmctld", "slurm"),
                ("var/lib/slurm/slurmd", "slurm"),
                ("var/log/slurm", "slurm"),
            ):
                (host.disk / directory).mkdir(parents=True, mode=0o700)
                shutil.chown(host.disk / directory, user, user)
            (host.disk / "var/lib/slurm").chmod(0o755)
            (host.disk / "etc/munge/munge.key").write_bytes(os.urandom(128))
            (host.disk / "etc/munge/munge.key").chmod(0o600)
        site.start("ctl", *NODES)
        for host in site.hosts.values():
            install_joblet(site, host.name)
        yield site
    finally:
        site.close()


def install_joblet(site: Site, name: str) -> None:
    """As the package does: the commands, and the first configuration."""
    virtual = Path(sys.executable).parent
    link = f"mkdir -p /opt/joblet/bin; ln -s {virtual}/joblet {virtual}/rnx /opt/joblet/bin"
    site.hosts[name].run(["sh", "-c", link])
    site.hosts[name].run(["/opt/joblet/bin/joblet", "init", "--root", "/opt/joblet"])


def carry_out(site: Site, name: str, text: str) -> str:
    environment = {
        "PATH": f"{COMMANDS}:/opt/joblet/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "REPOSITORY": str(REPOSITORY),
        "SITE": str(site.directory),
    }
    done = site.hosts[name].run(
        ["bash", "-euo", "pipefail", "-c", f"cd /run; {text}"], environment=environment, check=False, timeout=90
    )
    logs = "\n".join(
        f"--- {path}\n{path.read_text(errors='replace')[-2000:]}" for path in site.directory.glob("*/var/log/**/*.log")
    )
    assert done.returncode == 0, f"{name}: status {done.returncode} of:\n{text}\n{done.stdout}{done.stderr}\n{logs}"
    return done.stdout + done.stderr


def test_each_block_of_commands_says_where_it_belongs() -> None:
    assert {block.kind for block in BLOCKS} == set(HOSTS)
    begin = tuple(line for block in BLOCKS for line in block.text.splitlines())
    assert all(any(line.startswith(text) for line in begin) for text in EXPECTED)


@pytest.mark.parametrize("block", [one for one in BLOCKS if one not in LATER], ids=lambda block: f"line {block.line}")
def test_the_pages_commands_do_what_it_says(site: Site, block: Block) -> None:
    check(site, block)


def check(site: Site, block: Block) -> None:
    for name in HOSTS[block.kind]:
        shown = carry_out(site, name, block.text)
        for begin, expected in EXPECTED.items():
            if any(line.startswith(begin) for line in block.text.splitlines()):
                assert expected in shown, f"{name}:\n{block.text}\n{shown}"


def test_the_pages_epilog_puts_on_record_what_slurm_has_killed(site: Site) -> None:
    carry_out(site, "ctl", "rnx run --name shot -- sleep 600; rnx wait shot --for running")
    script = """
        watcher=$(pgrep -f "[s]andbox-exec"); init=$(pgrep -x joblet-init)
        kill -STOP $watcher; kill -KILL $init $watcher
    """
    node = next(name for name in NODES if "sandbox-exec" in site.hosts[name].run(["ps", "-eo", "args="]).stdout)
    carry_out(site, node, script)
    # In the words of the record that the epilog's sweep has made: without one it would be Slurm's word.
    shown = carry_out(site, "ctl", "rnx wait shot || rnx status shot")
    assert "Lost" in shown and KILLED in shown


@pytest.mark.parametrize("block", LATER, ids=lambda block: f"line {block.line}")
def test_the_pages_way_without_a_shared_directory_works(site: Site, block: Block) -> None:
    check(site, block)


def test_then_nothing_comes_by_the_shared_directory_any_more(site: Site) -> None:
    carry_out(site, "ctl", "ls /opt/joblet/state/slurm/home/attempts/far-*/log")
    assert carry_out(site, "ctl", "ls /srv/joblet/attempts | grep far || echo none") == "none\n"
