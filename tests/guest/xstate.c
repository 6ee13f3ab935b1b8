/*
 * Lets user-mode Linux before 6.13 run on a processor with AMX. Preloaded into the user-mode kernel; tests/guest/boot.py builds it.
 *
 * That kernel keeps the extended registers of its processes in buffers that end with AVX-512 (2,696 bytes). The host takes
 * PTRACE_SETREGSET only for the whole of its own layout, which with AMX is 11 KB, and refuses anything else with EFAULT;
 * the guest's first process then dies. So: read the whole and hand over the part asked for; on the way back, put that part
 * into a whole whose AMX components are marked as unused. Nothing in the guest uses AMX: a process has to ask the kernel for it.
 *
 * Layout: Intel SDM volume 1, 13.4 (standard format of the XSAVE area). The kernel's side: xstateregs_set() in arch/x86/kernel/fpu.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>

enum {
    PTRACE_GETREGSET = 0x4204,
    PTRACE_SETREGSET = 0x4205,
    NT_X86_XSTATE = 0x202,
    XSTATE_BV_OFFSET = 512,
    WHOLE_BYTES = 65536,
};
static const uint64_t AMX_COMPONENTS = 3ull << 17; /* XTILECFG, XTILEDATA */

/* One thread of the user-mode kernel traces, so one buffer is enough. */
static char whole[WHOLE_BYTES] __attribute__((aligned(64)));
static size_t host_bytes;

typedef long ptrace_function(long request, long pid, long address, void *data);

static long get(ptrace_function *real, long pid, struct iovec *asked)
{
    struct iovec all = {whole, sizeof whole};
    if (real(PTRACE_GETREGSET, pid, NT_X86_XSTATE, &all) < 0)
        return -1;
    host_bytes = all.iov_len;
    if (asked->iov_len > host_bytes)
        asked->iov_len = host_bytes;
    memcpy(asked->iov_base, whole, asked->iov_len);
    return 0;
}

static long set(ptrace_function *real, long pid, struct iovec *asked)
{
    uint64_t components;
    struct iovec all = {whole, host_bytes};
    if (asked->iov_len >= host_bytes)
        return real(PTRACE_SETREGSET, pid, NT_X86_XSTATE, asked);
    memset(whole, 0, host_bytes);
    memcpy(whole, asked->iov_base, asked->iov_len);
    memcpy(&components, whole + XSTATE_BV_OFFSET, sizeof components);
    components &= ~AMX_COMPONENTS;
    memcpy(whole + XSTATE_BV_OFFSET, &components, sizeof components);
    return real(PTRACE_SETREGSET, pid, NT_X86_XSTATE, &all);
}

long ptrace(long request, ...)
{
    static ptrace_function *real;
    va_list arguments;
    va_start(arguments, request);
    long pid = va_arg(arguments, long);
    long address = va_arg(arguments, long);
    void *data = va_arg(arguments, void *);
    va_end(arguments);

    if (real == NULL)
        real = (ptrace_function *)dlsym(RTLD_NEXT, "ptrace");
    if (address == NT_X86_XSTATE && request == PTRACE_GETREGSET)
        return get(real, pid, data);
    if (address == NT_X86_XSTATE && request == PTRACE_SETREGSET)
        return set(real, pid, data);
    return real(request, pid, address, data);
}
