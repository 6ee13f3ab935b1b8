"""The words that a field of a manifest may have, where there are but some."""

from __future__ import annotations

from enum import StrEnum


class VolumeType(StrEnum):
    """Where a volume's data lie."""

    FILESYSTEM = "filesystem"
    MEMORY = "memory"


class Enforcement(StrEnum):
    """What happens when a limit cannot be enforced on this host."""

    STRICT = "strict"
    BEST_EFFORT = "best-effort"


class Restart(StrEnum):
    """When an ended command is started again."""

    NEVER = "Never"
    ON_FAILURE = "OnFailure"
    ALWAYS = "Always"


class Engine(StrEnum):
    """What runs attempts."""

    LOCAL = "local"
    SLURM = "slurm"


class Network(StrEnum):
    """The networks that every host has; others are declared by manifests of kind Network."""

    NONE = "none"
    HOST = "host"
    BRIDGE = "bridge"
    ISOLATED = "isolated"


class Overlap(StrEnum):
    """What happens when a tick comes while an earlier run goes on."""

    FORBID = "Forbid"
    ALLOW = "Allow"
    REPLACE = "Replace"
    QUEUE = "Queue"


class Missed(StrEnum):
    """What is made up for of the ticks at which no daemon ran."""

    SKIP = "skip"
    ONCE = "once"
    ALL = "all"


class Drift(StrEnum):
    """What happens to a job that was stopped by hand."""

    CORRECT = "correct"
    REPORT = "report"
    IGNORE = "ignore"


class Upkeep(StrEnum):
    """What a job may ask the daemon to do."""

    BACKUP = "backup"
    ROTATE = "rotate"
    REPORT = "report"


class DependencyOutcome(StrEnum):
    """How another job's run has to have ended."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    FINISHED = "Finished"


class HookEvent(StrEnum):
    """How a run ended, for those who are told."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    TIMED_OUT = "TimedOut"
    STOPPED = "Stopped"
    FINISHED = "Finished"


class ProbeFailure(StrEnum):
    """What happens to a service that is not well."""

    REPORT = "Report"
    RESTART = "Restart"


class Seccomp(StrEnum):
    """Which system calls a job may make; besides there are profiles by their path."""

    DEFAULT = "default"
    STRICT = "strict"
    UNCONFINED = "unconfined"
