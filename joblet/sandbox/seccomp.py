"""The seccomp profile: deny by default, compiled with libseccomp into BPF once, in the daemon; the launcher only installs it.

The list is of the kind container engines use: what ordinary programs need, grouped by purpose. What is not named fails with
EPERM, clone3 with ENOSYS so that the C library falls back to clone, whose flags can be looked at. libseccomp is called
through ctypes: its Python bindings on the package index have had no release for years, and ten functions are all we need.
"""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache

from joblet.errors import JobletError

SCMP_ACT_ALLOW = 0x7FFF0000
SCMP_CMP_EQ = 4
SCMP_CMP_MASKED_EQ = 7
SCMP_FLTATR_CTL_OPTIMIZE = 8
CLONE_NEW_ANY = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
PERSONALITIES = (0x0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)
# Families without a use in a job, each with a history of kernel bugs.
ALLOWED_FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK
TERMINAL_INJECTION = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
COMPAT_ARCHITECTURES = {"x86_64": (b"x86", b"x32"), "aarch64": (b"arm",)}

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
io_cancel io_destroy io_getevents io_setup io_submit io_pgetevents io_pgetevents_time64 mq_getsetattr mq_notify
mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink
"""
MEMORY = """
brk mmap mmap2 mprotect mremap munmap madvise mincore msync mlock mlock2 mlockall munlock munlockall membarrier
remap_file_pages pkey_alloc pkey_free pkey_mprotect map_shadow_stack mseal memfd_secret get_mempolicy set_mempolicy
mbind set_mempolicy_home_node process_mrelease
"""
PROCESSES = """
execve execveat exit exit_group fork vfork wait4 waitid waitpid kill tkill tgkill getpid getppid gettid getpgid
getpgrp getsid setpgid setsid set_tid_address set_robust_list get_robust_list set_thread_area get_thread_area
arch_prctl prctl getpriority setpriority ioprio_get ioprio_set nice sched_getaffinity sched_setaffinity sched_getattr
sched_setattr sched_getparam sched_setparam sched_getscheduler sched_setscheduler sched_get_priority_max
sched_get_priority_min sched_rr_get_interval sched_rr_get_interval_time64 sched_yield getcpu getrlimit ugetrlimit
setrlimit prlimit64 getrusage times capget capset seccomp rseq pidfd_open pidfd_send_signal pidfd_getfd ptrace
process_vm_readv process_vm_writev kcmp landlock_create_ruleset landlock_add_rule landlock_restrict_self modify_ldt
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
recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto shutdown socketpair ipc msgctl msgget msgrcv msgsnd semctl semget
semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget
"""
WITH_CAPABILITY = {
    "SYS_CHROOT": "chroot",
    "SYS_NICE": "migrate_pages move_pages",
    "SYS_TIME": "clock_adjtime clock_settime settimeofday adjtimex",
    "SYS_PACCT": "acct",
    "SYS_TTY_CONFIG": "vhangup",
    "SYSLOG": "syslog",
}


class SeccompUnavailable(JobletError):
    """libseccomp is missing or refused the profile."""


class scmp_arg_cmp(ctypes.Structure):
    """struct scmp_arg_cmp of <seccomp.h>."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def allowed_names(capabilities: frozenset[str] = frozenset()) -> frozenset[str]:
    """The system calls that are allowed whatever their arguments."""
    groups = (FILES, MEMORY, PROCESSES, IDENTITY, SIGNALS_AND_TIME, WAITING, IPC_AND_NETWORK, "uname sysinfo getrandom")
    names = {name for group in groups for name in group.split()} - {"ioctl"}
    for capability in capabilities:
        names.update(WITH_CAPABILITY.get(capability, "").split())
    return frozenset(names)


@cache
def compile_default(capabilities: frozenset[str] = frozenset()) -> bytes:
    """The ``default`` profile as BPF, ``struct sock_filter`` after ``struct sock_filter``.

    capabilities: granted ones that need calls of their own. Raises SeccompUnavailable.
    """
    try:
        library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError as error:
        raise SeccompUnavailable(
            "libseccomp cannot be loaded", where=str(error), todo="apt-get install libseccomp2"
        ) from error
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    context = ctypes.c_void_p(library.seccomp_init(errno_action(errno.EPERM)))
    if context.value is None:
        raise SeccompUnavailable("seccomp_init failed")
    try:
        profile = _Profile(library, context)
        profile.add_architectures()
        profile.add_rules(capabilities)
        return profile.export()
    finally:
        library.seccomp_release(context)


def errno_action(number: int) -> int:
    """SCMP_ACT_ERRNO(number)."""
    return 0x00050000 | number


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


class _Profile:
    """One filter in the making."""

    def __init__(self, library: ctypes.CDLL, context: ctypes.c_void_p) -> None:
        self._library = library
        self._context = context

    def add_architectures(self) -> None:
        """The compat ABIs of this machine, so that 32-bit programs run under the same rules instead of being killed."""
        self._library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
        for name in COMPAT_ARCHITECTURES.get(os.uname().machine, ()):
            token = self._library.seccomp_arch_resolve_name(name)
            if token:
                self._check(self._library.seccomp_arch_add(self._context, ctypes.c_uint32(token)), errno.EEXIST)

    def add_rules(self, capabilities: frozenset[str]) -> None:
        for name in sorted(allowed_names(capabilities)):
            self.allow(name)
        # Namespaces are how a job would reach kernel code that it has no business with.
        self.allow("clone", (0, SCMP_CMP_MASKED_EQ, CLONE_NEW_ANY, 0))
        self.rule(errno_action(errno.ENOSYS), "clone3")
        for value in PERSONALITIES:
            self.allow("personality", (0, SCMP_CMP_EQ, value, 0))
        for family in ALLOWED_FAMILIES:
            self.allow("socket", (0, SCMP_CMP_EQ, family, 0))
        # The 32-bit ABIs multiplex socket(2); families can't be seen there, and few programs need it.
        for mask, value in all_but(TERMINAL_INJECTION):
            self.allow("ioctl", (1, SCMP_CMP_MASKED_EQ, mask, value))

    def allow(self, name: str, *comparisons: tuple[int, int, int, int]) -> None:
        self.rule(SCMP_ACT_ALLOW, name, *comparisons)

    def rule(self, action: int, name: str, *comparisons: tuple[int, int, int, int]) -> None:
        """Add one rule. A name that this libseccomp does not know is left out: it is denied then."""
        number = self._library.seccomp_syscall_resolve_name(name.encode())
        if number == -1:  # __NR_SCMP_ERROR
            return
        array = (scmp_arg_cmp * max(len(comparisons), 1))(*(scmp_arg_cmp(*comparison) for comparison in comparisons))
        result = self._library.seccomp_rule_add_array(
            self._context, ctypes.c_uint32(action), ctypes.c_int(number), ctypes.c_uint(len(comparisons)), array
        )
        self._check(result, errno.EDOM, errno.EOPNOTSUPP)  # a call that does not exist on a compat architecture

    def export(self) -> bytes:
        # A binary tree over the numbers: a hot call costs the logarithm of the list. Absent before libseccomp 2.5.
        self._check(
            self._library.seccomp_attr_set(self._context, SCMP_FLTATR_CTL_OPTIMIZE, ctypes.c_uint32(2)), errno.EEXIST
        )
        fd = os.memfd_create("seccomp")
        try:
            self._check(self._library.seccomp_export_bpf(self._context, fd))
            os.lseek(fd, 0, os.SEEK_SET)
            with open(fd, "rb", closefd=False) as file:
                return file.read()
        finally:
            os.close(fd)

    def _check(self, result: int, *harmless: int) -> None:
        if result < 0 and -result not in harmless:
            raise SeccompUnavailable(f"libseccomp refused a rule: {os.strerror(-result)}")
