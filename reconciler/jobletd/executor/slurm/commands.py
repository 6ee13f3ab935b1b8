"""Slurm asked by its own commands: sbatch, squeue, scancel, sinfo. Each is ended when its time is up."""

from __future__ import annotations

import calendar
import os
import re
import subprocess
import time
from collections.abc import Sequence

from jobletd.executor import EngineNode
from jobletd.executor.slurm.client import ENGINE, NAME_PREFIX, SlurmJob, SlurmRefused, SlurmUnavailable, Submission
from jobletd.executor.slurm.settings import SlurmSettings

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MANY = 500  # ids on one command line
ERROR_LENGTH = 300
# What no second try can mend, as slurm_strerror(3) words it.
_REFUSALS = (
    "invalid",
    "not available",
    "not permitted",
    "access denied",
    "permission denied",
    "requested node configuration",
    "memory specification can not be satisfied",
    "requested time limit",
    "violates accounting",
    "more processors requested",
    "node count specification",
    "unable to allocate resources: requested",
    "unrecognized option",
    "batch script is empty",
    "pathname of a file, directory or other parameter too long",
)
# ... unless it is one of these.
_PASSING = (
    "unable to contact",
    "connection",
    "socket timed out",
    "timed out",
    "try again",
    "temporarily",
    "munge",
    "authentication",
)
_JOB_FIELDS = (
    "JobID:30",
    "State:30",
    "exit_code:20",
    "RestartCnt:10",
    "StartTime:30",
    "BatchHost:80",
    "Reason:80",
    "Name:200",
)
NODE_FORMAT = "%N|%P|%T|%C|%O|%m|%e|%o|%E"
_TIME = "%Y-%m-%dT%H:%M:%S"


class CommandClient:
    """See ``client.Client``."""

    def __init__(self, settings: SlurmSettings) -> None:
        self._settings = settings

    def submit(self, submission: Submission) -> str:
        try:
            out = self._run("sbatch", *options(submission), stdin=submission.script)
        except SlurmUnavailable as error:
            if is_refusal(error.what):
                raise SlurmRefused(error.what, where="slurm", todo="change what the job asks for") from error
            raise
        job_id = out.strip().partition(";")[0]
        if not job_id.isdigit():
            raise SlurmUnavailable(f"sbatch answered with {out[:80]!r}", maybe_done=True)
        return job_id

    def jobs(self) -> Sequence[SlurmJob]:
        return self._squeue()

    def find(self, name: str) -> Sequence[SlurmJob]:
        return [job for job in self._squeue("--name", name) if job.name == name]

    def _squeue(self, *more: str) -> list[SlurmJob]:
        fields = ",".join(_JOB_FIELDS)
        out = self._run("squeue", "--noheader", "--states=all", "--me", *more, "-O", fields)
        return [job for line in out.splitlines() if (job := parse_job(line)) is not None]

    def terminate(self, ids: Sequence[str]) -> None:
        self._scancel(ids, "--batch", "--signal=TERM")

    def kill(self, ids: Sequence[str]) -> None:
        self._scancel(ids, "--batch", "--signal=USR1")

    def cancel(self, ids: Sequence[str]) -> None:
        self._scancel(ids)

    def _scancel(self, ids: Sequence[str], *how: str) -> None:
        for first in range(0, len(ids), MANY):
            self._run("scancel", "--quiet", *how, *ids[first : first + MANY], may_fail=True)

    def nodes(self) -> Sequence[EngineNode]:
        return parse_nodes(self._run("sinfo", "--noheader", "--Node", "--format", NODE_FORMAT))

    def _run(self, command: str, *arguments: str, stdin: str = "", may_fail: bool = False) -> str:
        """may_fail: its status does not count, as long as it reached Slurm. Raises SlurmUnavailable."""
        environment = {
            "PATH": PATH,
            "LC_ALL": "C",
            "SLURM_TIME_FORMAT": "standard",
            "TZ": "UTC",
            **self._settings.environment,
        }
        try:
            ended = subprocess.run(
                [*self._settings.prefix, command, *arguments],
                input=stdin,
                capture_output=True,
                text=True,
                errors="replace",
                env=environment,
                timeout=self._settings.command_seconds,
                check=False,
                cwd="/",
            )
        except subprocess.TimeoutExpired:
            what = f"{command} got no answer within {self._settings.command_seconds:g} s"
            raise SlurmUnavailable(what, maybe_done=True) from None
        except OSError as error:
            what = f"{command} cannot be run: {error.strerror}"
            raise SlurmUnavailable(what, todo="install Slurm's commands (Debian: slurm-client)") from error
        said = reason_of(ended.stderr)
        if ended.returncode != 0 and not (may_fail and not is_passing(said)):
            raise SlurmUnavailable(
                said or f"{command} ended with status {ended.returncode}", maybe_done=is_passing(said)
            )
        return ended.stdout


def options(submission: Submission) -> list[str]:
    """The command line of sbatch; the script comes on its standard input."""
    given = {
        "partition": submission.partition,
        "account": submission.account,
        "qos": submission.qos,
        "constraint": submission.constraint,
        "nodelist": submission.node,
        "exclude": ",".join(submission.exclude),
        "mem": "" if submission.memory_mb is None else f"{submission.memory_mb}M",
        "time": "" if submission.minutes is None else str(submission.minutes),
        "nice": str(submission.nice) if submission.nice else "",
    }
    return [
        "--parsable",
        f"--job-name={submission.name}",
        f"--comment={submission.comment}",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={submission.cpus}",
        "--no-requeue",
        "--propagate=NONE",
        # Of this command's own environment, which is built from nothing. Any other choice has slurmd start a login shell of the
        # user (Slurm 22.05 knows no NIL), which costs half a second and may wait for whatever its profile waits for.
        "--export=ALL",
        "--chdir=/",
        "--open-mode=append",
        f"--output={submission.output}",
        *(f"--{name}={value}" for name, value in given.items() if value),
    ]


def parse_job(line: str) -> SlurmJob | None:
    """One line of squeue; None if it is none of ours."""
    texts, start = [], 0
    for field in _JOB_FIELDS:
        width = int(field.partition(":")[2])
        texts.append(line[start : start + width].strip())
        start += width
    job_id, state, code, restarts, began, node, reason, name = texts
    if not name.startswith(NAME_PREFIX) or not job_id.isdigit():
        return None
    exit_code, exit_signal = parse_exit(code)
    return SlurmJob(
        id=job_id,
        name=name,
        state=state.partition(" ")[0],
        reason="" if reason == "None" else reason,
        node="" if node in ("n/a", "N/A", "(null)") else node,
        exit_code=exit_code,
        exit_signal=exit_signal,
        started=parse_time(began),
        restarts=int(restarts) if restarts.isdigit() else 0,
    )


def parse_exit(text: str) -> tuple[int | None, int]:
    """A wait status as one number, or ``code:signal``, which versions of Slurm differ in."""
    if match := re.fullmatch(r"(\d+):(\d+)", text):
        return int(match[1]), int(match[2])
    if not text.isdigit():
        return None, 0
    status = int(text)
    return (status >> 8, 0) if status > 255 or status == 0 else (0, status & 0x7F)


def parse_time(text: str) -> int:
    try:
        return calendar.timegm(time.strptime(text, _TIME))
    except ValueError:  # N/A, Unknown
        return 0


def parse_nodes(text: str) -> list[EngineNode]:
    """sinfo's lines, one for each node and partition, as one for each node."""
    found: dict[str, EngineNode] = {}
    partitions: dict[str, list[str]] = {}
    for line in text.splitlines():
        parts = line.split("|", 8)
        if len(parts) < 9:
            continue
        name, partition, state, cpus, load, memory, free, address, reason = (part.strip() for part in parts)
        partitions.setdefault(name, []).append(partition.rstrip("*"))
        used, *_, total = (int(part) if part.isdigit() else 0 for part in cpus.split("/"))
        memory_bytes, free_bytes = (int(part) << 20 if part.isdigit() else 0 for part in (memory, free))
        found[name] = EngineNode(
            engine=ENGINE,
            name=name,
            state=state,
            reason="" if reason == "none" else reason,
            partitions=tuple(partitions[name]),
            cpus=total,
            cpus_used=used,
            load=float(load) if re.fullmatch(r"[0-9.]+", load) else None,
            memory_bytes=memory_bytes,
            memory_used_bytes=max(memory_bytes - free_bytes, 0) if free.isdigit() else 0,
            address=address,
        )
    return list(found.values())


def reason_of(stderr: str) -> str:
    """What Slurm's commands say, as one line without their own name."""
    lines = [re.sub(r"^[a-z]+: (error: |fatal: )?", "", line).strip() for line in stderr.splitlines()]
    text = "; ".join(dict.fromkeys(line for line in lines if line))
    return "".join(character for character in text if character.isprintable())[:ERROR_LENGTH]


def is_passing(said: str) -> bool:
    """Whether it may be another time."""
    return any(word in said.lower() for word in _PASSING)


def is_refusal(said: str) -> bool:
    return not is_passing(said) and any(word in said.lower() for word in _REFUSALS)


def slurm_environment(config_file: str | None) -> dict[str, str]:
    """What Slurm's commands get of ours: where their configuration is."""
    found = {"SLURM_CONF": config_file or os.environ.get("SLURM_CONF", "")}
    return {name: value for name, value in found.items() if value}
