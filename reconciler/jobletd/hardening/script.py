"""``joblet harden --print``: a shell script that makes the host around the daemon harder to attack, for an administrator to read
and run. It is text made from the configuration; nothing here changes anything."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from shlex import quote

from joblet.config.server import ServerConfig
from joblet.errors import JobletError
from joblet.pki import is_address
from jobletd.backup.keeper import backup_directory
from jobletd.backup.making import database_path, key_path
from jobletd.logging_setup import escaped

FAIL2BAN = Path(__file__).with_name("fail2ban")
END = "JOBLET_END"
# A configuration may point here; what others use too is left as it is.
SHARED = frozenset(
    (
        *("/", "/etc", "/home", "/opt", "/root", "/run", "/srv", "/usr", "/usr/local", "/var"),
        *("/var/backups", "/var/lib", "/var/log", "/var/run", "/var/spool"),
    )
)
SYSCTL = """\
# What a process that got out of its sandbox, or was never in one, can learn of the kernel and do to it.
kernel.dmesg_restrict = 1
kernel.kptr_restrict = 2
kernel.perf_event_paranoid = 3
kernel.yama.ptrace_scope = 1
kernel.unprivileged_bpf_disabled = 1
net.core.bpf_jit_harden = 2
vm.unprivileged_userfaultfd = 0
# Links, pipes and files that somebody else put into a directory such as /tmp.
fs.protected_hardlinks = 1
fs.protected_symlinks = 1
fs.protected_fifos = 2
fs.protected_regular = 2
# No memory of programs with raised rights on the disk.
fs.suid_dumpable = 0
# A flood of half-open connections keeps nobody out.
net.ipv4.tcp_syncookies = 1
# User namespaces stay as they are: jobs need them. A job cannot make any of its own: seccomp refuses.
"""
HEAD = """\
#!/bin/sh
# Makes this host harder to attack, for the Joblet daemon that {config} configures.
#
# Printed by "joblet harden --print". Read it, strike out what you do not want, then run it as root:
#
#     joblet harden --print >harden.sh    # read it
#     sh harden.sh
#
# It may be run again at any time: what is as it should be stays untouched. What is not installed here is passed over.
set -eu

[ "$(id -u)" = 0 ] || {{ echo "harden: run this as root" >&2; exit 1; }}
say() {{ printf 'harden: %s\\n' "$*"; }}
has() {{ command -v "$1" >/dev/null 2>&1; }}

# mode MODE PATH...: these permissions, and root's.
mode() {{
    mode=$1
    shift
    for path; do
        [ -e "$path" ] || continue
        if [ "$(stat -c '%a %u' "$path")" != "$mode 0" ]; then
            chown root "$path"
            chmod "$mode" "$path"
            say "$path has mode $mode now"
        fi
    done
}}

# closed PATH...: nobody but root writes there.
closed() {{
    for path; do
        [ -e "$path" ] || continue
        if [ "$(stat -c '%u' "$path")" != 0 ] || [ -n "$(find "$path" -maxdepth 0 -perm /022)" ]; then
            chown root "$path"
            chmod go-w "$path"
            say "nobody but root writes to $path now"
        fi
    done
}}

# put PATH: make it what stands on standard input; fails if it was that already.
put() {{
    new=$(mktemp)
    cat >"$new"
    if cmp -s "$new" "$1"; then
        rm -f "$new"
        return 1
    fi
    mkdir -p "$(dirname "$1")"
    install -m 644 "$new" "$1"
    rm -f "$new"
    say "wrote $1"
}}
"""


class CannotHarden(JobletError):
    """The configuration leaves open what the script would have to know."""


def hardening(config: ServerConfig, config_path: str, sources: Sequence[str]) -> str:
    """The script. sources: networks that clients come from; none: all. Raises CannotHarden."""
    config_path = os.path.abspath(config_path)
    if any(escaped(path) != path for path in (config_path, *_paths(config))):
        raise CannotHarden("a path has control characters", where=escaped(config_path), todo="choose another one")
    networks = [_network(source) for source in sources]
    if config.server.port == 0:
        todo = "set server.port to a fixed one"
        raise CannotHarden("the daemon takes another port at each start", where="server.port", todo=todo)
    steps = [
        HEAD.format(config=config_path),
        *_modes(config, config_path),
        *_sysctl(),
        *_ufw(config, networks),
        *_selinux(config, config_path),
        *_fail2ban(config),
    ]
    return "\n".join(steps).rstrip() + "\n"


def _network(source: str) -> str:
    try:
        return str(ipaddress.ip_network(source, strict=False))
    except ValueError as error:
        todo = "give 192.0.2.0/24 or 2001:db8::/32"
        raise CannotHarden(f"{source!r} is no network", where="--allow-from", todo=todo) from error


def _modes(config: ServerConfig, config_path: str) -> Iterator[str]:
    directory = os.path.dirname(config_path)
    security = config.security
    keys = [path for path in (security.server_key_path, security.client_key_path) if path]
    ours = os.path.exists(f"{directory}/ca.key")  # else it may be anybody's, such as /etc
    private = [config.run.directory, backup_directory(config), *([directory] if ours else [])]
    closed = [config.state.directory, config.spool.directory, config.logs.directory]
    files = [config_path, *keys, key_path(config), database_path(config)]
    yield "# --- 1. Files with keys and state: nobody but root looks into them. The daemon does not start otherwise."
    if left_out := sorted({*private, *closed} & SHARED):
        yield f"# Left alone, since others use them too: {' '.join(left_out)}"
    yield f"mode 700 {_words(path for path in private if path not in SHARED)}"
    if ours and directory not in SHARED:
        yield f"for file in {quote(directory)}/*.yml {quote(directory)}/*.key {quote(directory)}/*.jsonl; do"
        yield '    mode 600 "$file"'
        yield "done"
    yield f"mode 600 {_words(files)}"
    yield "# Who may write to the spool may run anything; who may write to the state, be anybody."
    yield f"closed {_words(path for path in closed if path not in SHARED)}"
    yield ""


def _paths(config: ServerConfig) -> Iterator[str]:
    """All that the script writes out."""
    directories = (config.run, config.state, config.spool, config.logs, config.backup)
    keys = (config.state.key_file, config.security.server_key_path, config.security.client_key_path)
    yield from (path for path in (*(one.directory for one in directories), *keys, config.logging.output) if path)


def _words(paths: Iterable[str]) -> str:
    return " ".join(map(quote, paths))


def _sysctl() -> Iterator[str]:
    yield "# --- 2. The kernel."
    yield f"if put /etc/sysctl.d/60-joblet.conf <<'{END}'"
    yield SYSCTL + END
    yield "then"
    yield "    # -e: a kernel that lacks one of them is none the worse for it."
    yield "    sysctl -e -q -p /etc/sysctl.d/60-joblet.conf || say 'not all of these settings were taken: see above'"
    yield "fi"
    yield ""


def _ufw(config: ServerConfig, networks: Sequence[str]) -> Iterator[str]:
    port, address = config.server.port, config.server.address
    yield "# --- 3. The packet filter, if it is UFW. It is not switched on here: that could lock you out of this host."
    yield "if has ufw; then"
    if address == "localhost" or (is_address(address) and ipaddress.ip_address(address).is_loopback):
        yield f"    : # the daemon listens on {address} alone, so there is nothing to open"
    elif networks:
        for network in networks:
            yield f"    ufw allow proto tcp from {network} to any port {port} comment 'joblet: API'"
    else:
        yield "    # From everywhere, since it answers nobody without a certificate of ours. Better: --allow-from NETWORK"
        yield f"    ufw allow proto tcp to any port {port} comment 'joblet: API'"
    yield "    # UFW drops what is forwarded: without this, jobs on networks of their own reach nothing. Joblet's own filter"
    yield "    # lets nothing begin towards a job, and no job to the host or to another network of jobs."
    yield f"    ufw route allow from {config.network.pool} comment 'joblet: jobs'"
    yield "    ufw status | grep -q '^Status: active' ||"
    yield "        say 'ufw is not active; first let yourself in (ufw allow OpenSSH), then: ufw enable'"
    yield "fi"
    yield ""


def _selinux(config: ServerConfig, config_path: str) -> Iterator[str]:
    """Contexts as the policy has them for such data elsewhere. The daemon runs as unconfined_service_t."""
    contexts = (
        ("cert_t", os.path.dirname(config_path)),
        ("var_lib_t", config.state.directory),
        ("var_lib_t", config.spool.directory),
        ("var_log_t", config.logs.directory),
        *((("var_log_t", os.path.dirname(config.logging.output)),) if config.logging.output.startswith("/") else ()),
        ("var_run_t", config.run.directory),
    )
    yield "# --- 4. SELinux: contexts by which confined services (fail2ban, logrotate) get at the logs and at nothing else."
    yield "# No boolean has to be changed: systemd starts the daemon as unconfined_service_t, which may make namespaces and"
    yield "# cgroups, and no port needs a label for that domain. Jobs are confined by their own sandbox."
    yield "if has selinuxenabled && selinuxenabled; then"
    yield "    if has semanage; then"
    yield "        context() { # context TYPE DIRECTORY PATTERN"
    yield '            semanage fcontext -a -t "$1" "$3" 2>/dev/null || semanage fcontext -m -t "$1" "$3"'
    yield '            [ ! -e "$2" ] || restorecon -R "$2"'
    yield "        }"
    for kind, directory in dict.fromkeys(contexts):
        if directory in SHARED:  # they have theirs already
            continue
        yield f"        context {kind} {quote(directory)} {quote(re.escape(directory) + '(/.*)?')}"
    yield "    else"
    yield "        say 'SELinux is on and semanage is missing: install policycoreutils-python-utils, run this again'"
    yield "    fi"
    yield "fi"
    yield ""


def _fail2ban(config: ServerConfig) -> Iterator[str]:
    log = config.logging.output
    is_file = log.startswith("/")
    place = f"logpath = {log}" if is_file else "backend = systemd"
    jail = (FAIL2BAN / "jail.d/joblet.conf").read_text()
    jail = re.sub(r"(?m)^port = .*$", f"port = {config.server.port}", jail)
    jail = re.sub(r"(?m)^# logging\.output of .*\n", "", jail)
    jail = re.sub(r"(?m)^logpath = .*$", lambda _: place, jail)
    yield "# --- 5. fail2ban: whoever is refused again and again is shut out for a while."
    yield "if has fail2ban-client; then"
    if is_file:
        yield "    # It does not start without the file that it is to read."
        yield f"    [ -e {quote(log)} ] || {{ mkdir -p {quote(os.path.dirname(log))} && (umask 027 && : >{quote(log)}); }}"
    yield "    changed=no"
    for path, text in (
        ("/etc/fail2ban/filter.d/joblet.conf", (FAIL2BAN / "filter.d/joblet.conf").read_text()),
        ("/etc/fail2ban/jail.d/joblet.conf", jail),
    ):
        yield f"    if put {path} <<'{END}'"
        yield text + END
        yield "    then"
        yield "        changed=yes"
        yield "    fi"
    yield "    if [ $changed = yes ] && fail2ban-client ping >/dev/null 2>&1; then"
    yield "        fail2ban-client reload"
    yield "    fi"
    yield "else"
    yield "    say 'fail2ban is not installed: install it, run this again'"
    yield "fi"
