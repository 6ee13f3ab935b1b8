"""``rnx why``: one paragraph about why a job does not run, or why it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rnx.options import RefArgument
from rnx.target import Target, connected

if TYPE_CHECKING:
    from joblet.api.v1 import job_pb2
    from rnx.daemon import Daemon

EVENTS_SHOWN = 200
LINES_SHOWN = 3
MOST_WAITED_FOR = 8
FAILED_SHOWN = 3


@connected
def why(target: Target, ref: RefArgument) -> None:
    """Tell why a job or a workflow does not run, or why it ended, in one paragraph.

    From its conditions and events, the kernel's figures, and the last lines of its output.

    \b
    Example:
      rnx why report
      rnx why k3x9q2ab
      rnx why sweep.7
      rnx why workflow/nightly
    """
    import textwrap

    from rnx.kinds import split_ref
    from rnx.output.terminal import printable
    from rnx.reasons import workflow_paragraph

    kind, name = split_ref(ref)
    daemon = target.daemon()
    text = workflow_paragraph(daemon.resource(kind, name)) if kind == "Workflow" else job_paragraph(daemon, name)
    print(textwrap.fill(printable(text), width=100, break_long_words=False, break_on_hyphens=False))


def job_paragraph(daemon: Daemon, ref: str) -> str:
    from rnx.reasons import Facts, paragraph

    job = daemon.get(ref)
    run = job.runs[0] if job.runs else None
    failed = first_failed(daemon, run) if run else []
    output_of = failed[0].run if failed else run
    lines = last_lines(daemon, output_of) if output_of else []
    return paragraph(Facts(job, events_of(daemon, ref), lines, failed, waited_for(daemon, job)))


def events_of(daemon: Daemon, ref: str) -> list[job_pb2.Event]:
    """The newest ones, oldest first."""
    from collections import deque

    from joblet.api.v1 import job_pb2

    return list(deque(daemon.events(job_pb2.EventsRequest(ref=ref)), maxlen=EVENTS_SHOWN))


def first_failed(daemon: Daemon, run: job_pb2.Run) -> list[job_pb2.Index]:
    """The first few indexes of an array that failed."""
    from itertools import islice

    if not run.HasField("array") or not run.array.failed:
        return []
    return list(islice(daemon.indexes(run.id, states=["FAILED"], page_size=FAILED_SHOWN), FAILED_SHOWN))


def last_lines(daemon: Daemon, run: job_pb2.Run) -> list[str]:
    """Of the last attempt's output; none if it was removed, or nothing was written."""
    from joblet.api.v1 import job_pb2
    from rnx.failures import ClientError

    if not run.attempts:
        return []
    request = job_pb2.LogsRequest(ref=run.id, attempt=run.attempts[-1].number, tail_lines=LINES_SHOWN)
    try:
        data = b"".join(entry.data for batch in daemon.logs(request) for entry in batch.entries)
    except ClientError:  # told by ``rnx log``; the paragraph does without
        return []
    return [line for line in data.decode(errors="replace").splitlines() if line.strip()][-LINES_SHOWN:]


def waited_for(daemon: Daemon, job: job_pb2.Job) -> list[job_pb2.Job]:
    """The jobs that it depends on, as far as they are there."""
    from joblet.manifest import jobs_of, read_manifests
    from rnx.failures import ClientError

    found = []
    for manifest in jobs_of(read_manifests(job.manifest.encode(), filename=job.name)):
        for dependency in manifest.spec.depends_on[:MOST_WAITED_FOR]:
            try:
                found.append(daemon.get(dependency.job))
            except ClientError:  # that it is not there is what the run's message says
                continue
    return found
