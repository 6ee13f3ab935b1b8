"""Handing one attempt to Slurm, in a thread: looked up first wherever somebody may have done it before."""

from __future__ import annotations

import os

from jobletd.executor.slurm.client import Client
from jobletd.executor.slurm.furnishing import furnish
from jobletd.executor.slurm.records import read_told
from jobletd.executor.slurm.settings import SlurmSettings
from jobletd.executor.slurm.submission import submission_of
from jobletd.executor.slurm.tracking import Tracked, choose


def hand_over(client: Client, settings: SlurmSettings, tracked: Tracked, was_listed: bool) -> str:
    """Submit it, unless it was. Returns the id that Slurm gave it. was_listed: Slurm has shown a job of its name.

    The attempt's directory is made by whoever hands it over first, so one that is there tells of an earlier try, whose answer
    may never have come. Raises SlurmRefused, SlurmUnavailable, and what ``furnish`` does.
    """
    directory = settings.attempt_directory(tracked.attempt_id)
    try:
        os.mkdir(directory, 0o700)
        is_first = True
    except FileNotFoundError:
        os.makedirs(directory, 0o700)
        is_first = True
    except FileExistsError:
        is_first = False
    if not is_first or was_listed:
        claim = read_told(directory).claim
        if claim is not None and claim.job:
            return claim.job
        found = choose(client.find(tracked.name), "", claim)
        if found is not None and found.id not in tracked.dropped:
            return found.id
    furnish(settings, tracked)
    return client.submit(submission_of(tracked.document, tracked.manifest, settings))
