"""What this host can do, asked once: ``HostFeatures.probe()``. Nobody else asks the kernel, and nothing is changed by asking."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import joblet
from joblet.cgroup import CgroupError, Hierarchy, Mode, open_hierarchy, readable_size
from joblet.cgroup.hierarchy import ROOT
from jobletd import host_trials
from jobletd.feature import Feature
from jobletd.host_programs import git_features, service_features

TRIALS_WITHIN_SECONDS = 60
LOW_DISK_BYTES = 1 << 30
LOW_MEMORY_BYTES = 512 << 20
KERNEL = (5, 9)  # close_range; clone3 and pidfds are older
_CONTROLLERS = {
    "cpu": ("limits.cpu", "cpu"),
    "cpuset": ("limits.cpus", "cpuset"),
    "memory": ("limits.memory", "memory"),
    "pids": ("limits.pids", "pids"),
    "io": ("limits.io", "blkio"),
}
_NAMESPACE_COST = "jobs cannot be isolated: none can run"
_NEWER_KERNEL = f"run Linux {KERNEL[0]}.{KERNEL[1]} or newer"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the daemon is to work. directory: of its state. port: 0 if any. socket: the running daemon's, if it runs."""

    directory: str = "/"
    address: str = "127.0.0.1"
    port: int = 0
    socket: str = ""


@dataclass(frozen=True, slots=True)
class HostFeatures:
    """The answer of the one probe. cgroup_mode: v2, hybrid, v1, or empty if there is none. controllers: by their v2 names."""

    kernel: str
    architecture: str
    cgroup_mode: str
    controllers: frozenset[str]
    cpus: int
    memory_bytes: int
    swap_bytes: int
    features: tuple[Feature, ...]

    @staticmethod
    def probe(place: Place | None = None) -> HostFeatures:
        """Ask the kernel, mostly by trying. Takes some 50 ms; changes nothing on the host."""
        place = place or Place()
        try:
            hierarchy: Hierarchy | None = open_hierarchy()
        except CgroupError:
            hierarchy = None
        trials = run_trials(place.directory)
        memory = _memory()
        return HostFeatures(
            kernel=platform.release(),
            architecture=platform.machine(),
            cgroup_mode=hierarchy.mode if hierarchy else "",
            controllers=hierarchy.controllers if hierarchy else frozenset(),
            cpus=os.cpu_count() or 1,
            memory_bytes=memory["MemTotal"],
            swap_bytes=memory["SwapTotal"],
            features=(
                *_base_features(),
                *_kernel_features(trials),
                *_cgroup_features(hierarchy, trials, memory["SwapTotal"]),
                *_resource_features(place, memory),
                *git_features(),
                *service_features(),
            ),
        )

    @property
    def missing(self) -> tuple[Feature, ...]:
        """All that is not there, what is required first."""
        absent = [feature for feature in self.features if not feature.available]
        return tuple(sorted(absent, key=lambda feature: not feature.required))

    @property
    def can_run_jobs(self) -> bool:
        """Whether all that is required is there."""
        return all(feature.available for feature in self.features if feature.required)


def run_trials(directory: str) -> Mapping[str, str]:
    """Trial to error text, empty if it worked; a trial that was not made says why. directory: of the daemon's state."""
    package = str(Path(joblet.__file__).parent.parent)
    command = [sys.executable, "-I", "-S", "-B", host_trials.__file__, package, directory]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TRIALS_WITHIN_SECONDS, check=True)
        found: dict[str, str] = json.loads(done.stdout)
    except subprocess.CalledProcessError as error:
        last = (error.stderr or "").strip().splitlines()[-1:] or [f"exit status {error.returncode}"]
        return _NotTried(f"could not be tried: {last[0]}")
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return _NotTried(f"could not be tried: {error}")
    return found


class _NotTried(dict[str, str]):
    """The same reason for every trial."""

    def __init__(self, why: str) -> None:
        super().__init__()
        self._why = why

    def __missing__(self, key: str) -> str:
        return self._why


def _tried(name: str, error: str, worked: str, cost: str, mend: str, *, required: bool = True) -> Feature:
    return Feature(name, not error, error or worked, required, cost, mend)


def _base_features() -> list[Feature]:
    machine, known = platform.machine(), ("x86_64", "aarch64")
    version = platform.python_version()
    recent = platform.system() == "Linux" and kernel_at_least(*KERNEL)
    return [
        Feature("kernel", recent, f"{platform.release()} ({KERNEL[0]}.{KERNEL[1]} or newer is needed)", True, "no job can run",
                _NEWER_KERNEL),
        Feature("architecture", machine in known, machine, True, "no job can run", f"use a machine of {' or '.join(known)}"),
        Feature("python", sys.version_info >= (3, 11), version, True, "joblet does not run", "install Python 3.11 or newer"),
        Feature("root", os.geteuid() == 0, f"uid {os.geteuid()}", True, "no job can run", "run joblet as root"),
    ]  # fmt: skip


def _kernel_features(trials: Mapping[str, str]) -> list[Feature]:
    mends = {
        "user": "sysctl user.max_user_namespaces=15000; in a container: start it privileged",
        "network": "sysctl user.max_net_namespaces=15000, or a kernel with CONFIG_NET_NS",
    }
    features = [
        _tried(
            f"namespaces.{name}",
            trials[name],
            "works",
            _NAMESPACE_COST,
            mends.get(name, f"a kernel with {name} namespaces; in a container: start it privileged"),
        )
        for name in host_trials.NAMESPACES
    ]
    library = _load_error("libseccomp.so.2")
    return [
        *features,
        _tried("namespaces.mapping", trials["mapping"], "65,536 ids mapped", _NAMESPACE_COST, mends["user"]),
        _tried("mounts", trials["mounts"], "works", _NAMESPACE_COST, "in a container: start it privileged"),
        _tried("mounts.idmapped", trials["idmap"], "works",
               "little: the files of a root file system belong to nobody in the job, which cannot change them",
               "Linux 5.19, and a file system that can: ext4, XFS, Btrfs", required=False),
        _tried("clone3", trials["clone3"], "works", "no job can run", _NEWER_KERNEL),
        _tried("pidfd", trials["pidfd"], "works", "no job can run", _NEWER_KERNEL),
        _tried("close_range", trials["close_range"], "works", "no job can run", _NEWER_KERNEL),
        _tried("seccomp.filter", trials["seccomp"], "works", "no job can run: its system calls cannot be limited",
               "a kernel with CONFIG_SECCOMP_FILTER"),
        _tried("seccomp.library", library, "libseccomp.so.2", "no job can run: its system calls cannot be limited",
               "apt-get install libseccomp2, dnf install libseccomp"),
    ]  # fmt: skip


def _cgroup_features(hierarchy: Hierarchy | None, trials: Mapping[str, str], swap_bytes: int) -> list[Feature]:
    if hierarchy is None:
        mend = f"boot with systemd, or mount -t cgroup2 cgroup2 {ROOT}"
        return [Feature("cgroup", False, "no hierarchy is mounted", True, "no job can run", mend)]
    v2_tree, kill = hierarchy.mode is not Mode.V1, hierarchy.mode is not Mode.V1 and kernel_at_least(5, 14)
    writable = os.access(hierarchy.bases[0].removesuffix(f"/{hierarchy.relative}"), os.W_OK)
    found = f"{hierarchy.mode}: {' '.join(sorted(hierarchy.controllers))}{'' if writable else ', not writable'}"
    features = [
        Feature("cgroup", writable, found, True, "no job can run", "be root; in a container: mount the cgroups writable"),
        *(_controller(hierarchy, controller) for controller in _CONTROLLERS),
        _swap(hierarchy, swap_bytes),
        _tried("cgroup.clone_into", trials["clone_into_cgroup"] if v2_tree else "no v2 tree", "works",
               "no job can run" if v2_tree else "none here: processes join their cgroups one by one",
               "run Linux 5.7 or newer" if v2_tree else "boot with cgroup v2 (systemd.unified_cgroup_hierarchy=1)",
               required=v2_tree),
        Feature("cgroup.kill", kill, "one write kills all of a job" if kill else "not in this kernel",
                cost="little: a job's processes are frozen and killed one by one", mend="Linux 5.14 with a v2 tree"),
    ]  # fmt: skip
    if hierarchy.mode is Mode.V2:
        peak = kernel_at_least(5, 19)
        found = "memory.peak" if peak else "no memory.peak"
        features.append(
            Feature("usage.memory_peak", peak, found, cost="peak memory is not shown", mend="run Linux 5.19 or newer")
        )
    if hierarchy.mode is not Mode.V2:
        features.append(
            Feature(
                "limits.io.buffered",
                False,
                "cgroup v1 slows direct I/O and reads alone",
                cost="writes that go through the page cache are not slowed down",
                mend="boot with cgroup v2 (systemd.unified_cgroup_hierarchy=1)",
            )
        )
    return features


def _controller(hierarchy: Hierarchy, controller: str) -> Feature:
    name, v1_name = _CONTROLLERS[controller]
    kernel_name = controller if hierarchy.mode is Mode.V2 else v1_name
    available = controller in hierarchy.controllers
    mend = f"a kernel with the {kernel_name} controller, not switched off by cgroup_disable="
    if controller == "memory":
        mend += " (Raspberry Pi OS: cgroup_enable=memory on the kernel command line)"
    return Feature(
        name,
        available,
        f"{kernel_name} controller" if available else f"no {kernel_name} controller",
        cost=f"a job with spec.{name} is refused, or runs without it if its enforcement is best-effort",
        mend=mend,
    )


def _swap(hierarchy: Hierarchy, swap_bytes: int) -> Feature:
    if not swap_bytes:
        return Feature("limits.swap", True, "this host has no swap")
    limited = hierarchy.limits_swap()
    detail = "accounted for by cgroup" if limited else "not accounted for by cgroup"
    cost = "a job may be swapped out where the whole host runs short, and spec.limits.swap is refused"
    return Feature("limits.swap", limited, detail, cost=cost, mend="boot with swapaccount=1")


def _resource_features(place: Place, memory: Mapping[str, int]) -> list[Feature]:
    directory = place.directory
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    free = shutil.disk_usage(directory).free
    mkfs = shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin:/bin")
    loop = os.path.exists("/dev/loop-control")
    loop_detail = f"/dev/loop-control {'is' if loop else 'is not'} there, mkfs.ext4 {'is' if mkfs else 'is not'} there"
    overlay = _overlay()
    nft = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin")
    total, swap = _rounded(memory["MemTotal"]), _rounded(memory["SwapTotal"])
    return [
        Feature("limits.disk", loop and bool(mkfs), loop_detail,
                cost="a workspace with spec.limits.disk is held in memory",
                mend="modprobe loop, apt-get install e2fsprogs; in a container: give it /dev/loop-control and /dev/loop*"),
        _volumes(loop and bool(mkfs)),
        Feature("networks", bool(nft), f"{nft}; the kernel's part is tried with the first network" if nft else "no nft",
                cost="jobs have no network but none and host", mend="apt-get install nftables"),
        Feature("overlayfs", bool(overlay), overlay or "not in this kernel",
                cost="a job with spec.isolation.rootfs cannot start", mend="modprobe overlay"),
        Feature("memory", memory["MemAvailable"] >= LOW_MEMORY_BYTES,
                f"{total}, {_rounded(memory['MemAvailable'])} available, swap {swap}",
                cost="few jobs fit: the daemon takes some 100 MB, each idle job 1 MB and what its command needs",
                mend="add memory, or end what uses it (ps --sort=-rss -eo rss,pid,args)"),
        Feature("disk", free >= LOW_DISK_BYTES, f"{_rounded(free)} free on {directory}",
                cost="state, logs and workspaces soon find no room", mend="make room, or move state.directory"),
        _port(place),
    ]  # fmt: skip


def _volumes(images: bool) -> Feature:
    mapped = kernel_at_least(5, 12)
    detail = "works" if images and mapped else "no idmapped mounts" if images else "no loop devices or no mkfs.ext4"
    if images and mapped and not kernel_at_least(6, 3):
        detail = "works; those in memory take their whole size at once"
    return Feature("volumes", images and mapped, detail, cost="volumes cannot be declared",
                   mend="see limits.disk" if mapped else "run Linux 5.12 or newer")  # fmt: skip


def _port(place: Place) -> Feature:
    name, where = "port", f"{place.address}:{place.port}"
    if place.port == 0:
        return Feature(name, True, "any free one")
    if place.socket and _answers(place.socket):
        return Feature(name, True, f"{where} is joblet's: the daemon runs")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(place.address, place.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return Feature(name, False, f"{where}: {error.strerror or error}", True, "the daemon cannot listen",
                       f"end what uses it (ss -ltnp 'sport = :{place.port}'), or change server.port")  # fmt: skip
    return Feature(name, True, f"{where} is free", True)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def _load_error(library: str) -> str:
    try:
        ctypes.CDLL(library)
    except OSError as error:
        return str(error)
    return ""


def _overlay() -> str:
    if "\toverlay\n" in Path("/proc/filesystems").read_text():
        return "works"
    found = list(Path(f"/lib/modules/{platform.release()}/kernel/fs/overlayfs").glob("overlay.ko*"))
    return "a module that is loaded when needed" if found else ""


def _memory() -> dict[str, int]:
    """Bytes, by the names of /proc/meminfo."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    sizes = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    return {name: sizes.get(name, 0) for name in ("MemTotal", "MemAvailable", "SwapTotal")}


def _rounded(size: int) -> str:
    """For people: to a mebibyte, or a tenth of a gibibyte."""
    return readable_size(size >> 20 << 20) if size < 1 << 30 else f"{size / (1 << 30):.1f}Gi"


def kernel_at_least(major: int, minor: int) -> bool:
    """For the few things that cannot be tried without making something."""
    match = re.match(r"(\d+)\.(\d+)", platform.release())
    return match is not None and (int(match[1]), int(match[2])) >= (major, minor)
