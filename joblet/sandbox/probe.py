"""One probe of a running job: a small process that enters its namespaces, looks, says what it saw, and is gone.

Started anew for each probe, with everything that it needs on standard input: so it works for jobs whose daemon was another one,
and nothing of it stays in a job. A command runs as the job's own does: in its cgroup, with its user, capabilities and seccomp
filter; privileges are dropped by the same sequence. A connection is made from the job's network namespace, by nobody.
"""

from __future__ import annotations

import _signal
import _socket  # the C parts alone
import errno
import marshal
import os
import select
import sys
import time

from joblet.sandbox import command, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NOBODY = 65534
STATUS_LINE_BYTES = 4096
# Those of the host's user namespace first, as long as there is the right to enter them; the user namespace comes last.
NAMESPACES = ("net", "ipc", "uts", "mnt", "pid")


def main() -> None:
    """Read the probe, make it, print ``ok`` or why not on one line."""
    spec = marshal.load(sys.stdin.buffer)
    try:
        why = probe(spec)
    except (OSError, ValueError) as error:
        why = f"{type(error).__name__}: {error}"
    os.write(1, (why or "ok").encode(errors="replace")[:STATUS_LINE_BYTES])


def probe(spec: dict[str, Any]) -> str:
    """Why the job is not well; empty if it is. Raises OSError if it could not be asked."""
    namespaces = open_namespaces(spec["init_pid"], spec["init_start"])
    deadline = now() + spec["timeout_seconds"]
    if spec["type"] == "command":
        return run_command(spec, namespaces, deadline)
    syscalls.setns(namespaces["net"], syscalls.CLONE_NEWNET)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    return connect(spec, deadline)


def open_namespaces(init_pid: int, init_start: int) -> dict[str, int]:
    """Of the job's command, the first child of its init, if that is still the process that is meant."""
    with open(f"/proc/{init_pid}/task/{init_pid}/children", "rb") as file:
        children = file.read().split()
    # Beside the command, at first, who made its sandbox, and has the init's user namespace.
    others = user_namespace(init_pid)
    pid = next((int(child) for child in children if user_namespace(int(child)) not in (others, 0)), 0)
    if not pid:
        raise OSError(errno.ESRCH, "the job's command has ended")
    found = {name: os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in (*NAMESPACES, "user")}
    if start_time(init_pid) != init_start or parent(pid) != init_pid:
        raise OSError(errno.ESRCH, "the job has ended")
    return found


def user_namespace(pid: int) -> int:
    """Its number; 0 if the process has ended."""
    try:
        return os.stat(f"/proc/{pid}/ns/user").st_ino
    except OSError:
        return 0


def connect(spec: dict[str, Any], deadline: float) -> str:
    """To the job's own loopback; with a path also one request."""
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(max(deadline - now(), 0.001))
        sock.connect(("127.0.0.1", spec["port"]))
        if spec["type"] == "tcp":
            return ""
        host = f"127.0.0.1:{spec['port']}"
        request = (
            f"GET {spec['path']} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: joblet-probe\r\nConnection: close\r\n\r\n"
        )
        sock.sendall(request.encode("ascii"))
        answer = b""
        while b"\n" not in answer and len(answer) < STATUS_LINE_BYTES:
            sock.settimeout(max(deadline - now(), 0.001))
            data = sock.recv(STATUS_LINE_BYTES)
            if not data:
                break
            answer += data
        return http_fault(answer)
    except TimeoutError:
        return f"no answer within {spec['timeout_seconds']:g} s"
    except OSError as error:
        return f"port {spec['port']}: {error.strerror or error}"
    finally:
        sock.close()


def http_fault(answer: bytes) -> str:
    """What is wrong with the first line of an answer; empty: it has a status of 200 to 399."""
    version, _, rest = answer.partition(b"\n")[0].partition(b" ")
    code = rest[:3]
    if not version.startswith(b"HTTP/1.") or len(code) != 3 or not code.isdigit():
        return "the answer is no HTTP"
    return "" if 200 <= int(code) <= 399 else f"answered with status {int(code)}"


def run_command(spec: dict[str, Any], namespaces: dict[str, int], deadline: float) -> str:
    """In all that the job's command has around it. Its output goes nowhere."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    cgroups = [os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in spec["cgroups"]]
    errors_read, errors_write = os.pipe2(os.O_CLOEXEC)
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    ours.send(command.GO)
    spec = {**spec, "seccomp": {"program": spec["seccomp"]}}
    for name in NAMESPACES:  # a pid namespace is that of children to come
        syscalls.setns(namespaces[name], 0)
    pid = os.fork()
    if pid == 0:
        doors = command.Doors(cgroups, [namespaces["user"]], (null, null, null))
        command.become_new_command(spec, doors, theirs, errors_write, {})
    os.close(errors_write)
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if not poll.poll(max(deadline - now(), 0.0) * 1000):
        for target in (-pid, pid):  # its process group, once it has made one
            try:
                os.kill(target, _signal.SIGKILL)
            except ProcessLookupError:
                pass
        os.waitpid(pid, 0)
        return f"its command took longer than {spec['timeout_seconds']:g} s"
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if error := os.read(errors_read, STATUS_LINE_BYTES).decode(errors="replace").partition(" ")[2]:
        return f"its command cannot be run: {error}"
    return (
        ""
        if code == 0
        else f"its command exited with {code}"
        if code > 0
        else f"its command was killed by signal {-code}"
    )


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def start_time(pid: int) -> int:
    return int(stat_fields(pid)[19])


def parent(pid: int) -> int:
    return int(stat_fields(pid)[1])


def stat_fields(pid: int) -> list[bytes]:
    """From the third on, proc_pid_stat(5)."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()
