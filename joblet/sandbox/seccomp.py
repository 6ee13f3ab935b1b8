"""The seccomp profiles ``default`` and ``strict``: deny by default, compiled into BPF in the daemon; the launcher only
installs them.

The list is of the kind container engines use: what ordinary programs need, grouped by purpose. What is not named fails with
EPERM, clone3 with ENOSYS so that the C library falls back to clone, whose flags can be looked at.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from functools import cache

from joblet.sandbox.libseccomp import (
    SCMP_ACT_ALLOW,
    SCMP_CMP_EQ,
    SCMP_CMP_MASKED_EQ,
    Rule,
    SeccompUnavailable,
    compile_rules,
    errno_action,
)

__all__ = ["WITH_CAPABILITY", "SeccompUnavailable", "compile_default", "compile_strict"]

CLONE_NEW_ANY = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
PERSONALITIES = (0x0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET = 1, 2, 10, 16, 17
# All other families are without a use in a job, each with a history of kernel bugs.
ALLOWED_FAMILIES = (AF_UNIX, AF_INET, AF_INET6, AF_NETLINK)
TERMINAL_INJECTION = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
# 32-bit programs run under the same rules instead of being killed.
ARCHITECTURES = {"x86_64": ("x86_64", "x86", "x32"), "aarch64": ("aarch64", "arm")}

FILES = """
access faccessat faccessat2 chdir fchdir getcwd chmod fchmod fchmodat fchmodat2 chown chown32 fchown fchown32 fchownat
lchown lchown32 close close_range creat open openat openat2 dup dup2 dup3 fallocate fadvise64 fadvise64_64 fcntl
fcntl64 flock fstat fstat64 fstatat64 newfstatat stat stat64 lstat lstat64 statx statfs statfs64 fstatfs fstatfs64
fsync fdatasync sync syncfs sync_file_range sync_file_range2 ftruncate ftruncate64 truncate truncate64 getdents
getdents64 link linkat symlink symlinkat readlink readlinkat lseek _llseek mkdir mkdirat mknod mknodat rename renameat
renameat2 rmdir unlink unlinkat umask utime utimensat utimensat_time64 utimes futimesat read readv readahead pread64
preadv preadv2 write writev pwrite64 pwritev pwritev2 sendfile sendfile64 copy_file_range splice tee vmsplice ioctl
getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr setxattr lsetxattr fsetxattr removexattr lremovexattr
fremovexattr inotify_add_watch inotify_init inotify_init1 inotify_rm_watch memfd_create name_to_handle_at cachestat
mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink
"""
MEMORY = """
brk mmap mmap2 mprotect mremap munmap madvise mincore msync mlock mlock2 mlockall munlock munlockall membarrier
remap_file_pages pkey_alloc pkey_free pkey_mprotect map_shadow_stack mseal memfd_secret process_mrelease
"""
PROCESSES = """
execve execveat exit exit_group fork vfork wait4 waitid waitpid kill tkill tgkill getpid getppid gettid getpgid
getpgrp getsid setpgid setsid set_tid_address set_robust_list get_robust_list set_thread_area get_thread_area
arch_prctl prctl getpriority setpriority ioprio_get ioprio_set nice sched_getaffinity sched_setaffinity sched_getattr
sched_setattr sched_getparam sched_setparam sched_getscheduler sched_setscheduler sched_get_priority_max
sched_get_priority_min sched_rr_get_interval sched_rr_get_interval_time64 sched_yield getcpu getrlimit ugetrlimit
setrlimit prlimit64 getrusage times capget capset seccomp rseq pidfd_open pidfd_send_signal ptrace process_vm_readv
process_vm_writev landlock_create_ruleset landlock_add_rule landlock_restrict_self modify_ldt
"""
IDENTITY = """
getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32 getresgid getresgid32
getgroups getgroups32 setuid setuid32 setgid setgid32 setreuid setreuid32 setregid setregid32 setresuid setresuid32
setresgid setresgid32 setfsuid setfsuid32 setfsgid setfsgid32 setgroups setgroups32
"""
SIGNALS_AND_TIME = """
alarm pause signal sigaction sigaltstack sigprocmask sigreturn sigsuspend sigpending rt_sigaction rt_sigpending
rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
signalfd signalfd4 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
clock_nanosleep_time64 nanosleep time gettimeofday getitimer setitimer timer_create timer_delete timer_getoverrun
timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64
timerfd_settime timerfd_settime64 restart_syscall
"""
WAITING = """
epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2
poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 futex futex_time64 futex_waitv futex_wait
futex_wake futex_requeue pipe pipe2
"""
IPC_AND_NETWORK = """
accept accept4 bind connect getpeername getsockname getsockopt setsockopt listen recv recvfrom recvmmsg
recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto shutdown ipc msgctl msgget msgrcv msgsnd semctl semget
semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget
"""
# What 32-bit programs of arm have beside it: the C library sets its thread pointer by a call before anything else.
ARM = "set_tls cacheflush arm_fadvise64_64 arm_sync_file_range"
# Compared by their arguments below.
BY_ARGUMENT = frozenset({"ioctl"})
WITH_CAPABILITY = {
    "SYS_CHROOT": "chroot",
    "SYS_NICE": "get_mempolicy mbind migrate_pages move_pages set_mempolicy set_mempolicy_home_node",
    "SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    # Asynchronous I/O: there are fs.aio-max-nr events for the host and all jobs together, which nothing shares out.
    "SYS_RESOURCE": "io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit",
    "SYS_TIME": "clock_adjtime clock_settime settimeofday adjtimex",
    "SYS_PACCT": "acct",
    "SYS_TTY_CONFIG": "vhangup",
    "SYSLOG": "syslog",
    "NET_RAW": "",  # AF_PACKET
}
# What a program can do without that keeps to computing and to its files: each leads into much of the kernel's code.
NOT_STRICT = """
ptrace process_vm_readv process_vm_writev modify_ldt remap_file_pages memfd_secret vmsplice name_to_handle_at
mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink ipc
msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget
"""


def allowed_names(capabilities: frozenset[str] = frozenset()) -> frozenset[str]:
    """The system calls that ``default`` allows whatever their arguments."""
    other = "uname sysinfo getrandom"
    groups = (FILES, MEMORY, PROCESSES, IDENTITY, SIGNALS_AND_TIME, WAITING, IPC_AND_NETWORK, ARM, other)
    names = {name for group in groups for name in group.split()} - BY_ARGUMENT
    for capability in capabilities:
        names.update(WITH_CAPABILITY.get(capability, "").split())
    return frozenset(names)


@cache
def compile_default(capabilities: frozenset[str] = frozenset(), *, machine: str = "") -> bytes:
    """The ``default`` profile as BPF, ``struct sock_filter`` after ``struct sock_filter``.

    capabilities: granted ones that need calls of their own. machine: as uname(1) names it; empty: this one. Raises
    SeccompUnavailable.
    """
    families = (*ALLOWED_FAMILIES, AF_PACKET) if "NET_RAW" in capabilities else ALLOWED_FAMILIES
    rules = _rules(allowed_names(capabilities), families)
    return compile_rules(errno_action(errno.EPERM), ARCHITECTURES[machine or os.uname().machine], rules)


@cache
def compile_strict(capabilities: frozenset[str] = frozenset(), *, machine: str = "") -> bytes:
    """The ``strict`` profile: no sockets but AF_UNIX, no 32-bit programs, none of NOT_STRICT. As compile_default otherwise."""
    rules = _rules(allowed_names(capabilities).difference(NOT_STRICT.split()), (AF_UNIX,))
    return compile_rules(errno_action(errno.EPERM), ARCHITECTURES[machine or os.uname().machine][:1], rules)


def _rules(names: frozenset[str], families: tuple[int, ...]) -> Iterator[Rule]:
    """These calls, and what is looked at more closely."""
    # x86's older way to all socket calls. Of a rule for socket(2), libseccomp lets it through there whatever the family: an
    # unconditional rule that comes first wins over those. Programs of 32 bits with a C library that needs it have no network.
    yield Rule("socketcall", errno_action(errno.ENOSYS))
    for name in sorted(names):
        yield Rule(name, SCMP_ACT_ALLOW)
    # Namespaces are how a job would reach kernel code that it has no business with.
    yield Rule("clone", SCMP_ACT_ALLOW, ((0, SCMP_CMP_MASKED_EQ, CLONE_NEW_ANY, 0),))
    yield Rule("clone3", errno_action(errno.ENOSYS))
    for value in PERSONALITIES:
        yield Rule("personality", SCMP_ACT_ALLOW, ((0, SCMP_CMP_EQ, value, 0),))
    for family in families:
        yield Rule("socket", SCMP_ACT_ALLOW, ((0, SCMP_CMP_EQ, family, 0),))
    yield Rule("socketpair", SCMP_ACT_ALLOW, ((0, SCMP_CMP_EQ, AF_UNIX, 0),))  # only TIPC has them too
    for mask, value in all_but(TERMINAL_INJECTION):
        yield Rule("ioctl", SCMP_ACT_ALLOW, ((1, SCMP_CMP_MASKED_EQ, mask, value),))


def all_but(excluded: tuple[int, ...]) -> list[tuple[int, int]]:
    """(mask, value) pairs that together match every 32-bit number but these.

    The kernel looks at the low 32 bits of an ioctl's request alone, so comparing all 64 could be got around. A walk down the
    tree of bits: each branch without an excluded number in it is one pair.
    """
    pairs = []

    def walk(bit: int, mask: int, value: int, inside: tuple[int, ...]) -> None:
        if not inside:
            pairs.append((mask, value))
        elif bit >= 0:
            for branch in (0, 1 << bit):
                there = tuple(number for number in inside if number & 1 << bit == branch)
                walk(bit - 1, mask | 1 << bit, value | branch, there)

    walk(31, 0, 0, excluded)
    return pairs
