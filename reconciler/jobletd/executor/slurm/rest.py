"""Slurm asked by slurmrestd: HTTP with a token (JWT), or by its Unix socket. The API's version is that of Slurm 22.05."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from joblet.config.private_file import read_private
from jobletd.executor import EngineNode
from jobletd.executor.slurm.client import ENGINE, NAME_PREFIX, SlurmJob, SlurmRefused, SlurmUnavailable, Submission
from jobletd.executor.slurm.commands import is_passing, is_refusal
from jobletd.executor.slurm.settings import SlurmSettings

API = "/slurm/v0.0.38"
SIGTERM, SIGUSR1, SIGKILL = 15, 10, 9
MOST_BYTES = 256 << 20
DENIED = (401, 403)
MISSING = 404
SUCCESS = range(200, 300)
_TODO = "is slurmrestd up, and slurm.restUrl and slurm.restTokenPath right?"


class RestClient:
    """See ``client.Client``. A connection for each call: calls come seconds apart, and from several threads."""

    def __init__(self, settings: SlurmSettings) -> None:
        self._settings = settings

    def submit(self, submission: Submission) -> str:
        try:
            answer = self._call("POST", "/job/submit", {"script": submission.script, "job": properties(submission)})
        except SlurmUnavailable as error:
            if is_refusal(error.what):
                raise SlurmRefused(error.what, where="slurm", todo="change what the job asks for") from error
            raise
        job_id = answer.get("job_id")
        if not isinstance(job_id, int) or job_id <= 0:
            raise SlurmUnavailable(f"slurmrestd answered without a job's id: {str(answer)[:80]}", maybe_done=True)
        return str(job_id)

    def jobs(self) -> Sequence[SlurmJob]:
        found = self._call("GET", "/jobs").get("jobs") or []
        return [job for one in found if (job := parse_job(one)) is not None]

    def find(self, name: str) -> Sequence[SlurmJob]:
        """There is no query by name."""
        return [job for job in self.jobs() if job.name == name]

    def terminate(self, ids: Sequence[str]) -> None:
        self._delete(ids, f"?signal={SIGTERM}")

    def kill(self, ids: Sequence[str]) -> None:
        self._delete(ids, f"?signal={SIGUSR1}")

    def cancel(self, ids: Sequence[str]) -> None:
        self._delete(ids, f"?signal={SIGKILL}")

    def _delete(self, ids: Sequence[str], query: str) -> None:
        for job_id in ids:
            self._call("DELETE", f"/job/{job_id}{query}", may_fail=True)

    def nodes(self) -> Sequence[EngineNode]:
        return [node_of(one) for one in self._call("GET", "/nodes").get("nodes") or []]

    def _call(self, method: str, path: str, body: Any = None, *, may_fail: bool = False) -> dict[str, Any]:
        """may_fail: what is gone already is fine. Raises SlurmUnavailable."""
        connection = self._connection()
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, f"{API}{path}", data, self._headers())
            response = connection.getresponse()
            status, text = response.status, response.read(MOST_BYTES)
        except (OSError, http.client.HTTPException) as error:
            what = (
                f"slurmrestd does not answer: {getattr(error, 'strerror', None) or str(error) or type(error).__name__}"
            )
            raise SlurmUnavailable(what, maybe_done=method == "POST", todo=_TODO) from error
        finally:
            connection.close()
        if status in DENIED:
            raise SlurmUnavailable(f"slurmrestd refuses us: status {status}", todo="a new token: scontrol token")
        try:
            answer = json.loads(text) if text else {}
        except ValueError:
            answer = {}
        said = errors_of(answer)
        if (said or status not in SUCCESS) and not (may_fail and not is_passing(said)):
            what = f"slurmrestd: {said or f'status {status}'}"
            raise SlurmUnavailable(what, maybe_done=is_passing(said), todo=_TODO)
        return answer if isinstance(answer, dict) else {}

    def _connection(self) -> http.client.HTTPConnection:
        url = self._settings.rest_url
        seconds = self._settings.command_seconds
        if url.startswith("unix:"):
            return _UnixConnection(url.removeprefix("unix:"), seconds)
        parts = urlsplit(url)
        if parts.scheme == "https":
            return http.client.HTTPSConnection(parts.netloc, timeout=seconds, context=ssl.create_default_context())
        return http.client.HTTPConnection(parts.netloc, timeout=seconds)

    def _headers(self) -> dict[str, str]:
        """The token is read anew each time: whoever renews it tells nobody. By the socket the kernel says who we are."""
        headers = {"Content-Type": "application/json"}
        if self._settings.rest_token_path:
            headers["X-SLURM-USER-NAME"] = self._settings.rest_user
            token = read_private(self._settings.rest_token_path).strip()
            headers["X-SLURM-USER-TOKEN"] = token.removeprefix("SLURM_JWT=")
        return headers


class _UnixConnection(http.client.HTTPConnection):
    """HTTP by a Unix socket."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def properties(submission: Submission) -> dict[str, Any]:
    """What sbatch takes as options. The environment must not be empty: slurmrestd refuses that."""
    given: dict[str, Any] = {
        "partition": submission.partition,
        "account": submission.account,
        "qos": submission.qos,
        "constraints": submission.constraint,
        "required_nodes": [submission.node] if submission.node else None,
        "excluded_nodes": list(submission.exclude),
        "memory_per_node": submission.memory_mb,
        "time_limit": submission.minutes,
        "nice": str(submission.nice) if submission.nice else None,
    }
    return {
        "name": submission.name,
        "comment": submission.comment,
        "nodes": 1,
        "tasks": 1,
        "cpus_per_task": submission.cpus,
        "requeue": False,
        "environment": {"JOBLET": "1"},
        "current_working_directory": "/",
        "open_mode": "append",
        "standard_output": submission.output,
        **{name: value for name, value in given.items() if value},
    }


def parse_job(one: Mapping[str, Any]) -> SlurmJob | None:
    """One of slurmrestd's jobs; None if it is none of ours."""
    name = str(one.get("name", ""))
    if not name.startswith(NAME_PREFIX):
        return None
    status = one.get("exit_code")
    code, signal = (status >> 8, status & 0x7F) if isinstance(status, int) and status < 1 << 16 else (None, 0)
    started = one.get("start_time")
    reason = str(one.get("state_reason") or "")
    state = str(one.get("job_state", "")).partition(" ")[0]
    has_begun = isinstance(started, int) and state != "PENDING"
    return SlurmJob(
        id=str(one.get("job_id", "")),
        name=name,
        state=state,
        reason="" if reason == "None" else reason,
        node=str(one.get("batch_host") or one.get("nodes") or ""),
        exit_code=code,
        exit_signal=signal,
        started=started if isinstance(started, int) and has_begun else 0,
        restarts=int(one.get("restart_cnt") or 0),
    )


def node_of(one: Mapping[str, Any]) -> EngineNode:
    flags = [str(flag).lower() for flag in one.get("state_flags") or ()]
    load = one.get("cpu_load")
    memory, free = int(one.get("real_memory") or 0), int(one.get("free_memory") or 0)
    return EngineNode(
        engine=ENGINE,
        name=str(one.get("name", "")),
        state="+".join([str(one.get("state", "")).lower(), *flags]),
        reason=str(one.get("reason") or ""),
        partitions=tuple(map(str, one.get("partitions") or ())),
        cpus=int(one.get("cpus") or 0),
        cpus_used=int(one.get("alloc_cpus") or 0),
        load=load / 100 if isinstance(load, int | float) and load < 1 << 31 else None,
        memory_bytes=memory << 20,
        memory_used_bytes=max(memory - free, 0) << 20 if free else 0,
        address=str(one.get("address") or ""),
    )


def errors_of(answer: Any) -> str:
    """What slurmrestd says is wrong, as one line."""
    errors = answer.get("errors") if isinstance(answer, dict) else None
    words = [str(one.get("error") or one.get("description") or "") for one in errors or () if isinstance(one, dict)]
    return "; ".join(dict.fromkeys(word for word in words if word))[:300]
