"""The runs below an array's run, one an index: what they are called, and what they have from the array.

The manifest of an index follows from the array's, so it is not stored, and a change in place of the array is one of each index
that is open.
"""

from __future__ import annotations

from dataclasses import replace

from joblet.manifest import JobManifest, index_manifest
from jobletd.arrays.index_names import as_written, job_of_index
from jobletd.arrays.index_names import index_name as name_of_index
from jobletd.model import JobName, JobView, Phase, Run, RunId


def index_name(job: JobName, array: RunId, index: int) -> JobName:
    return JobName(name_of_index(job, array, index))


def job_part(name: JobName) -> JobName:
    """The job that an index belongs to; of a job that job itself."""
    return JobName(job_of_index(name))


def shown_name(run: Run) -> str:
    """What people call the job or index that the run is of."""
    return as_written(run.job)


def new_index_run(array: Run, index: int, run_id: RunId, now_ns: int) -> Run:
    """It stands in line from now on: an array does not go before those who asked later than it, but before its turn came."""
    name = index_name(array.job, array.id, index)
    return Run(
        id=run_id,
        job=name,
        job_uid=array.id,
        generation=array.generation,
        trigger=array.trigger,
        phase=Phase.PENDING,
        manifest=index_manifest(array.manifest, name, index),
        created_ns=now_ns,
        tick_seconds=array.tick_seconds,
        index=index,
    )


def with_manifest_of(array: JobManifest, run: Run) -> Run:
    """The run of an index as its array's manifest has it."""
    assert run.index is not None
    return replace(run, manifest=index_manifest(array, run.job, run.index))


def index_view(view: JobView, array: Run, run: Run) -> JobView:
    """An index as the reconciler works on it: like a job with that run alone. view: the job's."""
    if run.generation != array.generation:
        run = replace(run, generation=array.generation)
    return JobView(
        uid=array.id,
        manifest=run.manifest,
        source=view.source,
        generation=run.generation,
        observed_generation=run.generation,
        created_ns=run.created_ns,
        updated_ns=run.created_ns,
        runs=(run,),
        array_run=array.id,
    )
