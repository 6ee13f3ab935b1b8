"""What ``rnx log`` was asked for, whole: a run as it is; of a workflow and an array each line with whose it is."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from joblet.api.v1 import job_pb2
from joblet.errors import JobletError
from rnx.failures import Conflict, InvalidRequest
from rnx.indexes import wait_for_index
from rnx.labelled_log import LabelledLog, LabelledPrinter
from rnx.log_output import LogPrinter, print_run
from rnx.several import Several

if TYPE_CHECKING:
    from rnx.daemon import Daemon


@dataclass(frozen=True, slots=True)
class Beside:
    """Of one of several nodes: what stands before each of its lines, and who writes at the moment."""

    label: str
    lock: threading.Lock


def print_whole(
    daemon: Daemon, kind: str, request: job_pb2.LogsRequest, *, timestamps: bool, beside: Beside | None = None
) -> int:
    """kind: Job or Workflow, which the request names. Returns the exit code; what cannot be had of a part is told."""
    before, lock = ("", None) if beside is None else (beside.label, beside.lock)
    labelled = LabelledLog(daemon, request, timestamps=timestamps, before=before, lock=lock)
    if kind == "Workflow":
        labelled.workflow(request.ref)
        return told(labelled.failures)
    if request.follow:
        wait_for_index(daemon, request.ref)
    job = daemon.get(request.ref)
    if job.runs and job.runs[0].HasField("array"):
        if request.attempt:
            todo = f"rnx log {job.name} --index N --attempt {request.attempt}"
            raise InvalidRequest("--attempt is about one index of an array", todo=todo)
        labelled.array(job.runs[0])
        return told(labelled.failures)
    if not job.runs:
        raise Conflict(f"job {job.name} has not run yet", todo=f"rnx status {job.name} shows how it stands")
    request.ref = job.runs[0].id  # a later connection must mean the same run
    if beside is None:
        print_run(daemon, request, LogPrinter(timestamps=timestamps))
        return 0
    printer = LabelledPrinter(before, beside.lock, timestamps=timestamps)
    try:
        print_run(daemon, request, printer)
    finally:
        printer.end()
    return 0


def told(failures: dict[str, JobletError]) -> int:
    """Tell why some could not be shown. Returns the exit code."""
    several = Several({})
    several.failures = failures
    return several.tell()
