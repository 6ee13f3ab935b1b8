"""docs/DEPLOYMENT.md from top to bottom: each command is carried out here, each symptom brought about."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.deployment_page import Block, Section, sections
from tests.guest.boot import REPOSITORY
from tests.integration.host import eventually
from tests.timing import PATIENCE

SECTIONS = sections()
TROUBLES = "Troubleshooting"
CONFIG = Path("/opt/joblet/config/joblet-config.yml")
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
SERVER = "jobs.example.org"
DEPLOYER = "deploy"
SUDOERS = Path("/etc/sudoers.d/before-the-setup")
PROCESSES_OF_STAYS = "cat /sys/fs/cgroup/joblet.slice/joblet.service/job-stays-*/cgroup.procs"


def shell(text: str, *, check: bool = True) -> str:
    """What it printed, both streams."""
    ended = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", text],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=REPOSITORY,
        env=ENVIRONMENT,
        timeout=60 * PATIENCE,
        check=False,
    )
    if check and ended.returncode:
        journal = shell("journalctl --unit joblet --no-pager --lines 30", check=False)
        raise AssertionError(f"status {ended.returncode} of:\n{text}\n---\n{ended.stdout}\n---\n{journal}")
    return ended.stdout


def follow(text: str) -> str:
    """The first line of what goes on until it is interrupted."""
    process = subprocess.Popen(
        ["bash", "-eu", "-c", text], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, env=ENVIRONMENT, process_group=0
    )
    assert process.stdout is not None
    try:
        return process.stdout.readline()
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.stdout.close()
        process.wait(timeout=30 * PATIENCE)


def carry_out(block: Block) -> str:
    """What its commands print."""
    if block.kind == "sh client":
        return ""  # on another machine: tests/unit/project/test_build.py
    began = time.monotonic()
    output = follow(block.text) if block.kind == "sh follow" else shell(block.text)
    print(f"line {block.line}: {time.monotonic() - began:.1f} s\n{block.text}\n---\n{output}")
    return output


@pytest.fixture(scope="module", autouse=True)
def machine_of_the_page() -> Iterator[None]:
    """The server of the page is this one; a user may log in and use sudo. Nothing is left for the tests that follow."""
    Path("/usr/sbin/policy-rc.d").unlink(
        missing_ok=True
    )  # the machine's that the guest sees forbids that services start
    hosts = Path("/etc/hosts")
    hosts.write_text(hosts.read_text() + f"127.0.0.1 {SERVER}\n")
    shell(f"""
        useradd --create-home --shell /bin/bash --password '*' {DEPLOYER}
        install -d -m 700 -o {DEPLOYER} ~{DEPLOYER}/.ssh
        mkdir -p -m 700 ~/.ssh
        mkdir -p /run/sshd /run/sshd-of-the-page
        ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519 <<<y
        ssh-keygen -q -t ed25519 -N '' -f /run/sshd-of-the-page/host
        install -m 600 -o {DEPLOYER} ~/.ssh/id_ed25519.pub ~{DEPLOYER}/.ssh/authorized_keys
        echo "{SERVER} $(cat /run/sshd-of-the-page/host.pub)" >~/.ssh/known_hosts
    """)
    SUDOERS.write_text(f"{DEPLOYER} ALL=(ALL) NOPASSWD: ALL\n")
    sshd = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-p", "22", "-h", "/run/sshd-of-the-page/host"],
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
    )
    try:
        yield
    finally:
        sshd.terminate()
        sshd.wait()
        shell("make uninstall", check=False)
        for path in ("/opt/joblet", "/var/log/joblet"):
            shutil.rmtree(path, ignore_errors=True)
        shell(
            "systemctl daemon-reload; systemctl reset-failed; rm -rf /etc/systemd/system.control/joblet.slice.d",
            check=False,
        )


def pid_of_stays() -> str:
    return shell(PROCESSES_OF_STAYS).strip()


def before(section: Section, block: Block) -> None:
    """What the page cannot know of this machine."""
    if "make deploy" in block.text:
        SUDOERS.unlink()  # from now on by what the setup allowed


def check(section: Section, block: Block, output: str) -> None:
    """What a reader would look at."""
    for command, seen in LOOKS.items():
        if command in block.text:
            assert seen(output), f"after {block.text}:\n{output}"


LOOKS: dict[str, Callable[[str], bool]] = {
    "dpkg -i": lambda output: (
        "Active: active (running)" in output and "rnx 0." in output and "jobs can run here" in output
    ),
    "dpkg --remove": lambda output: bool(  # systemd takes it away once nobody needs it
        eventually(lambda: not Path("/sys/fs/cgroup/joblet.slice").exists(), what="the slice to be gone")
    ),
    "dpkg --purge": lambda output: not Path("/opt/joblet").exists() and not shutil.which("rnx", path="/usr/bin:/bin"),
    "make install": lambda output: "Active: active (running)" in output,
    "make deploy": lambda output: "Status:        RUNNING" in output and "Active: active (running)" in output,
    "memory.max": lambda output: f"{64 << 20}" in output.splitlines(),
    "certs renew": lambda output: "can be used" in output,
    "certs revoke": lambda output: "revoked: " in output,
    "/metrics": lambda output: "joblet_build_info" in output,
    "--grep client=admin": lambda output: "hello" in output,
    "-perm /077": lambda output: "/opt/joblet/config/" not in output,
    "sysctl --load": lambda output: "LimitNOFILE=1048576" in output,
    "joblet restore": lambda output: "ready" in output,
    "joblet report": lambda output: "joblet_build_info" in output,
    "harden.sh": lambda output: Path("/etc/fail2ban/jail.d/joblet.conf").exists(),
    "run --job daily-backup": lambda output: ".joblet-backup" in output,
}


@pytest.mark.parametrize("section", [one for one in SECTIONS if one.chapter != TROUBLES], ids=lambda one: one.title)
def test_what_the_page_says_is_so(section: Section) -> None:
    for block in section.blocks:
        before(section, block)
        kept = pid_of_stays() if "make deploy" in block.text else ""
        check(section, block, carry_out(block))
        if kept:
            assert pid_of_stays() == kept  # the upgrade in place left the job alone


# How each symptom of the page comes about, in a shell; it ends with what tells the message.
SYMPTOMS = {
    "`nothing listens there`": "systemctl stop joblet; rnx list",
    "`cannot listen: Address already in use`": """
        systemctl stop joblet
        timeout 60 python3 -c 'import socket, time; s = socket.create_server(("0.0.0.0", 50051)); time.sleep(60)' &
        until ss -ltn | grep -q :50051; do sleep 0.1; done
        joblet serve
        kill %1; wait; systemctl start joblet
    """,
    "`unknown key (did you mean maxConcurrentJobs?)`": f"""
        sed -i 's/maxConcurrentJobs/maxConcurentJobs/' {CONFIG}
        systemctl reload joblet
        joblet config check
    """,
    "`holds keys and can be read by others`": f"chmod 644 {CONFIG}; joblet config check",
    "`there is no such file (joblet init --root DIR makes one)`": "joblet config check --config /opt/joblet/config/other.yml",
    "`the daemon says that this client's certificate was revoked`": "rnx --config /opt/joblet/config/rnx-config-anna.yml list",
    "`not allowed: Apply needs the role admin`": "rnx --config /opt/joblet/config/rnx-config-viewer.yml run -- true",
    "`the memory limit of 16Mi was exceeded`": "rnx run --wait --max-memory 16 -- sh -c 'exec tail /dev/zero'",
    "`the host's network is not allowed on this host`": "rnx run --network host -- true",
    "`this host has no cpuset controller`": "rnx run --wait --cpu-cores 0 -- true",
}


@pytest.mark.parametrize("section", [one for one in SECTIONS if one.chapter == TROUBLES], ids=lambda one: one.title)
def test_a_symptom_shows_the_message_of_its_heading_and_is_mended_by_what_stands_there(section: Section) -> None:
    if section.level == 3:
        message = section.title.strip("`")
        told = " ".join(shell(f"set +e; {SYMPTOMS[section.title]}", check=False).split())
        assert message in told, told
    for block in section.blocks:
        carry_out(block)
    assert json.loads(shell("rnx nodes -o json"))


def test_every_symptom_is_brought_about() -> None:
    assert {one.title for one in SECTIONS if one.chapter == TROUBLES and one.level == 3} == SYMPTOMS.keys()
    eventually(lambda: shell("systemctl is-active joblet").strip() == "active")
