/* The floor of a launch: what the kernel takes, with next to nothing on top of it.
 *
 *   floor fork|namespaces|sandbox SCRATCH COMMAND [ARGUMENT]...
 *
 * fork: fork and exec. namespaces: clone3 into a new mount, pid, user, network, IPC, UTS and cgroup namespace, and exec. sandbox: clone3
 * with the same, a new root on the directory SCRATCH with the host's /usr read-only, /proc, six devices, /tmp and /work, pivot_root, and exec.
 * Waits for a byte on standard input, runs the command, and answers with a byte when it has ended; until end of file.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define INSIDE (CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP)

static void need(int good, const char *what) {
    if (!good) {
        fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
        _exit(125);
    }
}

static pid_t clone_into(uint64_t flags) {
    struct clone_args arguments = {.flags = flags, .exit_signal = SIGCHLD};
    return (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
}

static void bind(const char *from, const char *to, unsigned long more) {
    need(mount(from, to, NULL, MS_BIND | MS_REC, NULL) == 0, from);
    if (more)
        need(mount(NULL, to, NULL, MS_REMOUNT | MS_BIND | more, NULL) == 0, from);
}

/* /usr, or another of its kind: a link where the host has a link. */
static void system_directory(const char *name) {
    char from[64], link[256];
    snprintf(from, sizeof from, "/%s", name);
    ssize_t length = readlink(from, link, sizeof link - 1);
    if (length > 0) {
        link[length] = 0;
        need(symlink(link, name) == 0, name);
    } else if (access(from, F_OK) == 0) {
        need(mkdir(name, 0755) == 0, name);
        bind(from, name, MS_RDONLY | MS_NOSUID);
    }
}

static void new_root(const char *scratch) {
    static const char *const system[] = {"usr", "bin", "sbin", "lib", "lib64"};
    static const char *const devices[] = {"null", "zero", "full", "random", "urandom", "tty"};
    need(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0, "private mounts");
    need(mount("root", scratch, "tmpfs", MS_NOSUID, "mode=755") == 0, scratch);
    need(chdir(scratch) == 0, scratch);
    for (size_t i = 0; i < sizeof system / sizeof *system; i++)
        system_directory(system[i]);
    need(mkdir("proc", 0755) == 0 && mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0, "/proc");
    need(mkdir("tmp", 0755) == 0 && mount("tmp", "tmp", "tmpfs", MS_NOSUID | MS_NODEV, NULL) == 0, "/tmp");
    need(mkdir("work", 0755) == 0 && mount("work", "work", "tmpfs", MS_NOSUID | MS_NODEV, NULL) == 0, "/work");
    need(mkdir("dev", 0755) == 0, "/dev");
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        char from[64];
        snprintf(from, sizeof from, "/dev/%s", devices[i]);
        int node = open(from + 1, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
        need(node >= 0 && close(node) == 0, from);
        bind(from, from + 1, 0);
    }
    need(syscall(SYS_pivot_root, ".", ".") == 0 && umount2(".", MNT_DETACH) == 0, "pivot_root");
    need(chdir("/work") == 0, "/work");
    need(unshare(CLONE_NEWUSER) == 0, "user namespace"); /* last, as the mounts need the rights over the first one */
}

int main(int count, char **arguments) {
    if (count < 4) {
        fprintf(stderr, "usage: floor fork|namespaces|sandbox SCRATCH COMMAND [ARGUMENT]...\n");
        return 2;
    }
    int sandbox = !strcmp(arguments[1], "sandbox"), plain = !strcmp(arguments[1], "fork");
    char byte;
    while (read(0, &byte, 1) == 1) {
        pid_t child = plain ? fork() : clone_into(sandbox ? INSIDE : INSIDE | CLONE_NEWUSER);
        need(child >= 0, arguments[1]);
        if (child == 0) {
            if (sandbox)
                new_root(arguments[2]);
            int null = open("/dev/null", O_RDWR | O_CLOEXEC);
            need(null >= 0 && dup2(null, 0) == 0 && dup2(null, 1) == 1, "/dev/null");
            execv(arguments[3], arguments + 3);
            need(0, arguments[3]);
        }
        int status;
        need(waitpid(child, &status, 0) == child, "waitpid");
        need(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the command");
        need(write(1, "", 1) == 1, "answer");
    }
    return 0;
}
