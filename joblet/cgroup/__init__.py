"""cgroups: one interface, two hierarchies. What is asked is planned as data; what is so is read back here and only here."""

from joblet.cgroup.detect import DEFAULT_BASE, open_hierarchy
from joblet.cgroup.device import device_of
from joblet.cgroup.errors import CgroupError
from joblet.cgroup.hierarchy import Hierarchy
from joblet.cgroup.model import CgroupLimits, CgroupPlan, CgroupUsage, IoLimits, LimitReading, Mode
from joblet.cgroup.nested import NestedV1, NestedV2, open_nested, remove_nested
from joblet.cgroup.own import OwnMemory, own_memory
from joblet.cgroup.readings import readable_percent, readable_size

__all__ = [
    "DEFAULT_BASE",
    "CgroupError",
    "CgroupLimits",
    "CgroupPlan",
    "CgroupUsage",
    "Hierarchy",
    "IoLimits",
    "LimitReading",
    "Mode",
    "NestedV1",
    "NestedV2",
    "OwnMemory",
    "device_of",
    "open_hierarchy",
    "open_nested",
    "own_memory",
    "readable_percent",
    "readable_size",
    "remove_nested",
]
