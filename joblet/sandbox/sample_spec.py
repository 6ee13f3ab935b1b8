"""A launch spec of the usual kind that leads nowhere, with which launcher, init and the command's process rehearse.

After a fork the two processes share their memory, and each page costs a fault when it is first written to; in Python that is
nearly every page that is looked at, for the sake of reference counts. So each goes through its part of a launch once while there
is no work, with paths that are harmless.
"""

import marshal

_NOWHERE = "/dev/null"
_USAGE = ("pids.current", "memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control", "cpu.stat")

CGROUP = {
    "mkdir": [],
    "write": [(_NOWHERE, str(64 << 20), "memory"), (_NOWHERE, "100000", "cpu"), (_NOWHERE, "64", "pids")],
    "init_into": None,
    "command_into": None,
    "join": [_NOWHERE] * 5,
    "usage": dict.fromkeys(_USAGE, _NOWHERE),
    "oom": {"control": _NOWHERE, "event_control": _NOWHERE},
}
SPEC = {
    "version": 1,
    "attempt": "rehearsal",
    "attempt_dir": "/dev",
    "log_path": "/dev/log",
    "log_bytes": 8 << 20,
    "argv": ["/"],
    "script": None,
    "env": {"PATH": "/usr/bin:/bin", "HOME": "/work", "HOSTNAME": "rehearsal", "JOBLET_JOB": "rehearsal"},
    "workdir": "/",
    "hostname": "rehearsal",
    "uid": 0,
    "gid": 0,
    "id_base": 0,
    "id_count": 65536,
    "network": "none",
    "rootfs": "host",
    "root_bytes": 64 << 20,
    "etc": {"passwd": "root:x:0:0:root:/work:/bin/sh\n", "group": "root:x:0:\n", "hosts": "127.0.0.1 localhost\n"},
    "workspace": {"type": "tmpfs", "bytes": 1 << 20},
    "files": [],
    "outputs": [],
    "secrets": [],
    "tmp_bytes": 1 << 20,
    "capabilities": [],
    "seccomp": {"name": "default"},
    "rlimits": {},
    "stop_signal": 15,
    "grace_seconds": 10.0,
    "timeout_seconds": None,
    "cgroup": CGROUP,
}
PACKED = marshal.dumps(SPEC)
# What is handed over to the init when such a command runs.
HANDED_NAMES = (
    *("state", "status", "attempt", "record", "stdout", "stderr", "errors", "log", "oom", "oom_event"),
    *(f"usage {name}" for name in _USAGE),
)
HANDED_OVER = marshal.dumps(
    {
        "why": "",
        "released": True,
        "boot_id": "",
        "not_counted": [],
        "spec": {
            "attempt": "rehearsal",
            "timeout_seconds": None,
            "grace_seconds": 10.0,
            "stop_signal": 15,
            "outputs": [],
        },
        "main_pid": 1,
        "deadline": None,
        "log_name": "log",
        "log_bytes": 8 << 20,
        "names": list(HANDED_NAMES),
    }
)
