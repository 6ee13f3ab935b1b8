"""Names in a manifest: of jobs, hosts, labels, variables, signals, capabilities, paths. Errors are ValueError.

Signals and capabilities are Linux's (signal(7), linux/capability.h) written out, since a manifest is also checked on
machines whose own tables differ or that have none.
"""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress

from joblet.manifest.nearest import nearest
from joblet.manifest.quantities import shown

NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"  # RFC 1123 label
HOSTNAME_PATTERN = r"^[A-Za-z0-9]([-A-Za-z0-9.]{0,62}[A-Za-z0-9])?$"
ENV_NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]{0,254}$"
LABEL_KEY_PATTERN = r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"
SECRET_KEY_PATTERN = r"^(?!\.{1,2}$)[A-Za-z0-9._-]{1,253}$"  # noqa: S105  a pattern
CIDR_PATTERN = r"^([0-9]{1,3}\.){3}[0-9]{1,3}/[0-9]{1,2}$"
MODE_PATTERN = r"^0?[0-7]{3}$"
FILE_PATH_PATTERN = r"^(?!/)(?!.*//)(?!(.*/)?\.{1,2}(/|$))[^\u0000]*[^/\u0000]$"
MOUNT_PATH_PATTERN = (
    r"^/(?!(proc|sys|dev|etc|usr|bin|sbin|lib|lib32|lib64|libx32|run/joblet|run/secrets)(/|$))(?!.*//)"
    r"(?!(.*/)\.{1,2}(/|$))[^\u0000]+$"
)
LOCAL_PATH_PATTERN = r"^(?!/)(\./)?(?!.*//)(?!(.*/)?\.{1,2}(/|$))[^\u0000]*[^/\u0000]$"
LINK_TARGET_PATTERN = r"^(?!/)[^\u0000]+$"
SHA256_PATTERN = r"^[0-9a-f]{64}$"
OUTPUT_NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,62}$"
HTTP_PATH_PATTERN = r"^/[!-~]{0,1999}$"
SLURM_WORD_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
SLURM_CONSTRAINT_PATTERN = r"^[A-Za-z0-9\[(][][A-Za-z0-9_.:&|*()-]{0,254}$"
FURNISHED = ("proc", "sys", "dev", "etc", "usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
ABSOLUTE_PATH_PATTERN = r"^/(?!.*//)(?!(.*/)\.{1,2}(/|$))[^\u0000]*$"
NO_NUL_PATTERN = r"^[^\u0000]*$"

# Room for a gateway and a few jobs at least; no more than one bridge is good for at most.
SHORTEST_CIDR, LONGEST_CIDR = 16, 29

# One argument or variable may have 128 KiB, its final NUL included: MAX_ARG_STRLEN, linux/binfmts.h.
MAX_ARGUMENT_BYTES = 131_071
MAX_PATH_BYTES = 4095
MAX_SEGMENT_BYTES = 255

_SIGNALS = """
    HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT TSTP TTIN TTOU URG XCPU
    XFSZ VTALRM PROF WINCH IO PWR SYS
"""

_CAPABILITIES = """
    AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH
    FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN
    NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT
    SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM
"""
SIGNALS = tuple("SIG" + name for name in _SIGNALS.split())
CAPABILITIES = tuple(_CAPABILITIES.split())


def _compiled(pattern: str) -> re.Pattern[str]:
    # Python's $ also matches before a final newline; the schema's does not.
    return re.compile(pattern.replace("$", r"\Z"), re.ASCII | re.DOTALL)


_NAME, _HOSTNAME, _ENV = _compiled(NAME_PATTERN), _compiled(HOSTNAME_PATTERN), _compiled(ENV_NAME_PATTERN)
_LABEL_KEY, _LABEL_VALUE = _compiled(LABEL_KEY_PATTERN), _compiled(LABEL_VALUE_PATTERN)
_MODE, _CIDR = _compiled(MODE_PATTERN), _compiled(CIDR_PATTERN)
_SHA256 = _compiled(SHA256_PATTERN)
_SECRET_KEY = _compiled(SECRET_KEY_PATTERN)
_OUTPUT_NAME = _compiled(OUTPUT_NAME_PATTERN)
_SLURM_WORD, _SLURM_CONSTRAINT = _compiled(SLURM_WORD_PATTERN), _compiled(SLURM_CONSTRAINT_PATTERN)
_HTTP_PATH = _compiled(HTTP_PATH_PATTERN)


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        hint = "; write it in quotes" if isinstance(value, (bool, int, float)) else ""
        raise ValueError(f"{shown(value)} is not {what}{hint}")
    return value


def check_name(value: object) -> str:
    """A job's name: an RFC 1123 label."""
    text = _text(value, "a name")
    if not _NAME.match(text):
        raise ValueError(
            f"{shown(text)} is not a name (use 1 to 63 of a-z, 0-9 and -, with a letter or digit at both ends)"
        )
    return text


def check_cidr(value: object) -> str:
    """An IPv4 network with room for some jobs, written as ipaddress writes it."""
    text = _text(value, "a network")
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError:
        hint = ""
        if _CIDR.match(text) and all(int(part) < 256 for part in text.partition("/")[0].split(".")):
            with suppress(ValueError):
                hint = f"; did you mean {ipaddress.IPv4Network(text, strict=False)}?"
        raise ValueError(f"{shown(text)} is not an IPv4 network{hint} (use one as in 10.20.0.0/24)") from None
    if not LONGEST_CIDR >= network.prefixlen >= SHORTEST_CIDR:
        raise ValueError(f"{shown(text)} has a prefix out of range (/{SHORTEST_CIDR} to /{LONGEST_CIDR})")
    if network.is_loopback or network.is_multicast or network.is_link_local or network.is_unspecified:
        raise ValueError(f"{shown(text)} has a meaning of its own (use a private one as in 10.20.0.0/24)")
    return str(network)


def check_hostname(value: object) -> str:
    """A host name of at most 64 characters, the kernel's limit."""
    text = _text(value, "a host name")
    if not _HOSTNAME.match(text) or any(not part or part[0] == "-" or part[-1] == "-" for part in text.split(".")):
        raise ValueError(f"{shown(text)} is not a host name (use 1 to 64 letters, digits, - and .)")
    return text


def check_env_name(value: object) -> str:
    """The name of an environment variable."""
    text = _text(value, "the name of an environment variable")
    if not _ENV.match(text):
        raise ValueError(f"{shown(text)} is not the name of an environment variable (use letters, digits and _)")
    return text


def check_secret_key(value: object) -> str:
    """The key of one of a secret's values, which may be the name of a file."""
    text = _text(value, "a secret's key")
    if not _SECRET_KEY.match(text):
        raise ValueError(f"{shown(text)} is not a secret's key (use 1 to 253 letters, digits, -, _ and .)")
    return text


def check_label_key(value: object) -> str:
    """A label's or annotation's key, with or without a prefix: ``example.org/team``."""
    text = _text(value, "a label's key")
    if not _LABEL_KEY.match(text):
        raise ValueError(
            f"{shown(text)} is not a key (use up to 63 letters, digits, -, _ and ., after prefix/ if need be)"
        )
    return text


def check_label_value(value: object) -> str:
    """A label's value."""
    text = _text(value, "text")
    if not _LABEL_VALUE.match(text):
        raise ValueError(f"{shown(text)} is not a label's value (use up to 63 letters, digits, -, _ and .)")
    return text


def check_argument(value: object) -> str:
    """One argument or variable's value: text that execve can pass on."""
    text = _text(value, "text")
    if "\0" in text:
        raise ValueError("holds a NUL character, which the kernel cannot pass on")
    if len(text) * 4 > MAX_ARGUMENT_BYTES and len(text.encode()) > MAX_ARGUMENT_BYTES:
        raise ValueError(
            f"is longer than {MAX_ARGUMENT_BYTES} bytes, the most that the kernel passes on; use spec.files"
        )
    return text


def check_script(value: object) -> str:
    """A script: text, not blank, without NUL."""
    text = _text(value, "a script")
    if not text.strip():
        raise ValueError("the script is empty")
    if "\0" in text:
        raise ValueError("holds a NUL character")
    return text


def check_signal(value: object) -> str:
    """A signal's name as in signal(7), that a process can be stopped with."""
    text = _text(value, "a signal's name")
    if text not in SIGNALS:
        raise ValueError(
            f"{shown(text)} is not a signal{_or_nearest(text, SIGNALS, prefix='SIG')} (use SIGTERM, SIGINT, ...)"
        )
    return text


def check_capability(value: object) -> str:
    """A capability's name as in capabilities(7), without ``CAP_``."""
    text = _text(value, "a capability")
    if text not in CAPABILITIES:
        hint = _or_nearest(text.upper().removeprefix("CAP_"), CAPABILITIES)
        raise ValueError(f"{shown(text)} is not a capability{hint} (names as in capabilities(7), without CAP_)")
    return text


def _or_nearest(word: str, choices: tuple[str, ...], *, prefix: str = "") -> str:
    best = nearest(word, choices) or (nearest(prefix + word, choices) if prefix else None)
    return f"; did you mean {best}?" if best else ""


def parse_mode(value: object) -> int:
    """Permission bits from ``"0644"``."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f'{value} is a number; write the permissions in quotes, in octal: "0644"')
    text = _text(value, "a file mode")
    if not _MODE.match(text):
        raise ValueError(f'{shown(text)} is not a file mode (use three octal digits, as in "0644")')
    return int(text, 8)


def check_absolute_path(value: object) -> str:
    """An absolute path without ``.``, ``..`` or empty parts."""
    text = _text(value, "a path")
    if not text.startswith("/"):
        raise ValueError(f"{shown(text)} is not an absolute path")
    return text if text == "/" else "/" + _checked_parts(text[1:].removesuffix("/") or ".", text)


def check_mount_path(value: object) -> str:
    """Where a volume may be seen: an absolute path outside of what the sandbox itself furnishes."""
    path = check_absolute_path(value)
    first = path.split("/")[1]
    own = path.startswith(("/run/joblet/", "/run/secrets/")) or path in ("/run/joblet", "/run/secrets")
    if own or path in ("/", "/work", "/tmp", "/var", "/run", "/var/tmp") or first in FURNISHED:  # noqa: S108  paths of the job
        raise ValueError(f"{shown(path)} is the sandbox's own; choose another place, such as /data or /work/data")
    return path


def check_file_path(value: object) -> str:
    """A path below the workspace: relative, without ``.``, ``..`` or empty parts."""
    text = _text(value, "a path")
    if text.startswith("/"):
        raise ValueError(f"{shown(text)} is absolute; write it relative to /work")
    return _checked_parts(text, text)


def check_output_name(value: object) -> str:
    """The name of a small file by which a job hands a result on."""
    text = _text(value, "a name")
    if not _OUTPUT_NAME.match(text):
        raise ValueError(
            f"{shown(text)} is no name of an output (use 1 to 63 letters, digits, -, _ and ., no . at first)"
        )
    return text


def check_http_path(value: object) -> str:
    """What an HTTP request names: path and query, as they are sent."""
    text = _text(value, "a path")
    if not _HTTP_PATH.match(text):
        raise ValueError(f"{shown(text)} is no path of a request (use / and what follows, without spaces)")
    return text


def check_local_path(value: object) -> str:
    """A file beside the manifest, or below: relative, without ``..``. A leading ``./`` means nothing."""
    text = _text(value, "a path")
    if text.startswith("/"):
        raise ValueError(f"{shown(text)} is absolute; write it relative to the manifest's directory")
    return _checked_parts(text.removeprefix("./"), text)


def check_link_target(value: object) -> str:
    """Where a link leads to: relative, since it must stay below the workspace."""
    text = _text(value, "a link's target")
    if not text or text.startswith("/") or "\0" in text or len(text.encode()) > MAX_PATH_BYTES:
        raise ValueError(f"{shown(text)} is no target of a link (use a relative path)")
    return text


def check_sha256(value: object) -> str:
    """A SHA-256 in lower-case hex."""
    text = _text(value, "a SHA-256")
    if not _SHA256.match(text):
        raise ValueError(f"{shown(text)} is not a SHA-256 (64 digits 0-9 and a-f)")
    return text


def _checked_parts(path: str, given: str) -> str:
    if "\0" in path:
        raise ValueError("holds a NUL character")
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{shown(given)} has an empty part, . or .. in it")
    if len(path.encode()) > MAX_PATH_BYTES or any(len(part.encode()) > MAX_SEGMENT_BYTES for part in parts):
        raise ValueError(f"{shown(given)} is too long ({MAX_SEGMENT_BYTES} bytes a part, {MAX_PATH_BYTES} in all)")
    return path


def check_slurm_word(value: object) -> str:
    """The name of a partition, an account, a QOS or a node of Slurm."""
    if not isinstance(value, str) or not _SLURM_WORD.match(value):
        raise ValueError(
            f"{shown(value)} is no name that Slurm knows (letters, digits, - _ . and at most 63 characters)"
        )
    return value


def check_slurm_constraint(value: object) -> str:
    """Features of a node as sbatch's --constraint combines them."""
    if not isinstance(value, str) or not _SLURM_CONSTRAINT.match(value):
        raise ValueError(f"{shown(value)} is no constraint (names of features, joined by & or |)")
    return value
