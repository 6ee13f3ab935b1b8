"""What a command finds around it, and that everything it can fill is bounded and counted as its own."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator

import pytest

from joblet.cgroup import CgroupLimits
from joblet.sandbox.seccomp import compile_strict
from tests.integration.sandbox_attempts import Sandboxes, sandboxes

MI = 1 << 20


@pytest.fixture(scope="module")
def box() -> Iterator[Sandboxes]:
    with sandboxes() as made:
        yield made


# --- /etc, /dev -------------------------------------------------------------------------------------------------------


def test_etc_holds_what_is_built_and_nothing_else(box: Sandboxes) -> None:
    names = set(box.shell("ls /etc").split())
    expected = {
        "passwd",
        "group",
        "hosts",
        "hostname",
        "resolv.conf",
        "nsswitch.conf",
        "ssl",
        "ld.so.cache",
        "alternatives",
    }
    assert expected <= names <= expected | {"localtime", "timezone", "pki"}
    assert box.shell("cat /etc/hosts; (echo x > /etc/hosts) 2>/dev/null || echo kept") == "127.0.0.1 localhost\nkept\n"


def test_the_jobs_own_files_of_etc_are_its_own(box: Sandboxes) -> None:
    etc = {"passwd": "job:x:5:6::/work:/bin/sh\n", "group": "job:x:6:\n", "resolv.conf": "nameserver 192.0.2.1\n"}
    output = box.shell(
        "id; cat /etc/resolv.conf; touch /run/x /run/joblet/etc/x 2>/dev/null || true", uid=5, gid=6, etc=etc
    )
    assert output == "uid=5(job) gid=6(job) groups=6(job)\nnameserver 192.0.2.1\n"


def test_certificates_and_libraries_are_found(box: Sandboxes) -> None:
    box.shell(
        "python3 -c 'import ssl; assert ssl.create_default_context().cert_store_stats()' && ldconfig -p | grep -q libc"
    )


def test_dev_is_minimal_with_terminals_of_its_own(box: Sandboxes) -> None:
    names = set(box.shell("ls /dev").split())
    links = {"fd", "stdin", "stdout", "stderr", "ptmx", "core"}
    assert names == {"null", "zero", "full", "random", "urandom", "tty", "pts", "shm", *links}
    assert box.shell("ls /dev/pts") == "ptmx\n"


# --- bounds -----------------------------------------------------------------------------------------------------------

FILL = "head -c 40M /dev/zero 2>&1 > {path}/big; stat -c %s {path}/big; echo still here"
FILES = """
import errno, itertools, sys
try:
    for number in itertools.count():
        open(f'{sys.argv[1]}/{number}', 'x').close()
except OSError as error:
    print(errno.errorcode[error.errno], 1000 <= number < 20000)
"""
PLACES = ("/work", "/tmp", "/dev/shm")


@pytest.mark.parametrize("path", PLACES)
def test_what_is_full_is_full_for_the_job(box: Sandboxes, path: str) -> None:
    output = box.shell(FILL.format(path=path))
    assert output.splitlines()[-2:] == [str(16 * MI), "still here"] and "No space left on device" in output


@pytest.mark.parametrize("path", PLACES)
def test_files_without_content_are_bounded_too(box: Sandboxes, path: str) -> None:
    attempt = box.run(["/usr/bin/python3", "-c", FILES, path])
    assert attempt.output() == b"ENOSPC True\n", attempt.output("stderr")


@pytest.mark.parametrize("path", PLACES)
def test_what_lies_in_memory_is_the_jobs_memory(box: Sandboxes, path: str) -> None:
    attempt = box.run(
        ["/bin/sh", "-c", f"head -c 12M /dev/urandom > {path}/some"],
        CgroupLimits(memory_bytes=64 * MI),
    )
    usage = box.hierarchy.parse_usage(attempt.record()["usage"])
    assert usage.memory_peak_bytes is not None and usage.memory_peak_bytes >= 12 * MI


def test_a_job_that_fills_more_than_its_memory_dies_and_not_the_host(box: Sandboxes) -> None:
    attempt = box.run(
        ["/bin/sh", "-c", "head -c 30M /dev/zero > /dev/shm/a"],
        CgroupLimits(memory_bytes=16 * MI),
        tmp_bytes=64 * MI,
    )
    usage = box.hierarchy.parse_usage(attempt.record()["usage"])
    assert attempt.record()["outcome"] != {"type": "exited", "code": 0}
    assert usage.oom_kills


# --- nothing leaks ----------------------------------------------------------------------------------------------------


def test_no_path_of_the_host_is_in_mountinfo(box: Sandboxes) -> None:
    lines = box.shell("cat /proc/self/mountinfo").splitlines()
    assert str(box.root) not in "\n".join(lines)
    for fields in map(str.split, lines):
        source, target = fields[3], fields[4]
        # A system directory is what it is called; the rest are roots of file systems or parts of our own.
        assert source in ("/", target) or target.startswith(("/proc/", "/sys/", "/dev/")), fields


def test_what_the_host_mounts_later_below_a_system_directory_is_not_seen(box: Sandboxes) -> None:
    propagation = [line.split(" - ")[0].split()[6:] for line in box.shell("cat /proc/self/mountinfo").splitlines()]
    assert [options for options in propagation if options] == []


def test_only_the_standard_descriptors_are_open_whatever_the_launcher_holds(box: Sandboxes) -> None:
    script = "import os; print(sorted(int(fd) for fd in os.listdir('/proc/self/fd')))"
    # 3 is the directory that listdir reads.
    assert box.run(["/usr/bin/python3", "-c", script]).output() == b"[0, 1, 2, 3]\n"


def test_no_process_of_another_user_is_seen(box: Sandboxes) -> None:
    script = "import os; print(os.path.exists('/proc/1'), {p for p in os.listdir('/proc') if p.isdigit()} == {str(os.getpid())})"
    assert box.run(["/usr/bin/python3", "-c", script]).output() == b"False True\n"
    assert "hidepid=invisible" in box.shell("grep ' /proc ' /proc/self/mountinfo")


SESSION_KEYRING = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
number = {'x86_64': 250, 'aarch64': 219}[__import__('os').uname().machine]
print(libc.syscall(number, 0, -3, 0), libc.syscall(number, 11, int(sys.argv[1]), 0, 0))
"""  # KEYCTL_GET_KEYRING_ID of KEY_SPEC_SESSION_KEYRING, KEYCTL_READ


@pytest.mark.native_only(reason="the guest's kernel has no keys")
def test_the_daemons_session_keyring_is_not_the_jobs_even_without_a_filter(box: Sandboxes) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    keyctl = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
    ours = libc.syscall(ctypes.c_long(keyctl), ctypes.c_long(0), ctypes.c_long(-3), ctypes.c_long(0))
    command = ["/usr/bin/python3", "-c", SESSION_KEYRING, str(ours)]
    first, second = (box.run(command, seccomp={"program": b""}).output().split() for _ in range(2))
    assert ours > 0 and len({str(ours).encode(), first[0], second[0]}) == 3
    assert (first[1], second[1]) == (b"-1", b"-1")


# --- other filters ----------------------------------------------------------------------------------------------------


def test_ordinary_programs_run_under_strict(box: Sandboxes) -> None:
    script = (
        "import json, subprocess, threading, socket; socket.socketpair(); print(subprocess.check_output(['id']) != b'')"
    )
    strict = {"program": compile_strict()}
    assert box.run(["/usr/bin/python3", "-c", script], seccomp=strict).output() == b"True\n"
    assert box.shell("ls / | sort | wc -l; date > /work/date; id", seccomp=strict)


def test_without_a_filter_there_is_none_and_no_privilege_either(box: Sandboxes) -> None:
    output = box.shell("grep -E 'Seccomp:|NoNewPrivs|CapBnd' /proc/self/status", seccomp={"program": b""})
    assert output.split() == ["CapBnd:", "0" * 16, "NoNewPrivs:", "1", "Seccomp:", "0"]
