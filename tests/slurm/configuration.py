"""Slurm's configuration files for a cluster of tests' hosts: only what versions 22.05 to 24.05 all know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from joblet.cgroup.detect import mounted
from joblet.cgroup.hierarchy import ROOT

REST_PORT = 6820
JWT_KEY = "/etc/slurm/jwt_hs256.key"


def slurm_conf(
    *,
    nodes: Mapping[str, str],
    controller: str,
    address: str,
    cpus: int,
    memory_mib: int,
    options: Sequence[str] = (),
) -> str:
    """nodes: address by name. cpus, memory_mib: of each node, whatever it really has. options: further lines."""
    lines = [
        "ClusterName=joblet",
        f"SlurmctldHost={controller}({address})",
        "SlurmUser=root",
        "AuthType=auth/munge",
        "CredType=cred/munge",
        "AuthAltTypes=auth/jwt",
        f"AuthAltParameters=jwt_key={JWT_KEY}",
        "SlurmctldPidFile=/run/slurmctld.pid",
        "SlurmdPidFile=/run/slurmd.pid",
        "StateSaveLocation=/var/spool/slurmctld",
        "SlurmdSpoolDir=/var/spool/slurmd",
        "SlurmctldLogFile=/var/log/slurmctld.log",
        "SlurmdLogFile=/var/log/slurmd.log",
        "MpiDefault=none",
        "SwitchType=switch/none",
        "ProctrackType=proctrack/cgroup",
        "TaskPlugin=task/cgroup",
        "JobAcctGatherType=jobacct_gather/none",
        "AccountingStorageType=accounting_storage/none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU_Memory",
        "SchedulerType=sched/backfill",
        "SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=1",
        "DefMemPerCPU=128",
        "MinJobAge=3600",
        "MaxJobCount=20000",
        "JobRequeue=0",
        "ReturnToService=2",
        "SlurmdTimeout=15",
        "SlurmctldTimeout=15",
        "KillWait=2",
        "InactiveLimit=0",
        "EnforcePartLimits=ALL",
        "SlurmdParameters=config_overrides",
        *options,
        *(
            f"NodeName={name} NodeAddr={at} CPUs={cpus} RealMemory={memory_mib} State=UNKNOWN"
            for name, at in nodes.items()
        ),
        f"PartitionName=main Nodes={','.join(nodes)} Default=YES MaxTime=INFINITE State=UP",
    ]
    return "".join(f"{line}\n" for line in lines)


def cgroup_conf(*, constrain_cores: bool) -> str:
    """For the hierarchy that this machine has."""
    plugin = "cgroup/v2" if mounted()[1] == ROOT else "cgroup/v1"
    lines = [
        f"CgroupPlugin={plugin}",
        f"CgroupMountpoint={ROOT}",
        *(["IgnoreSystemd=yes"] if plugin == "cgroup/v2" else []),
        f"ConstrainCores={'yes' if constrain_cores else 'no'}",
        "ConstrainRAMSpace=yes",
        "ConstrainSwapSpace=no",
        "AllowedRAMSpace=100",
    ]
    return "".join(f"{line}\n" for line in lines)
