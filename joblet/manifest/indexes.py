"""From the manifest of a job with an array to its indexes, and to what runs for each of them: pure functions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from joblet.manifest.array import ARRAY_VARIABLES, combinations, matrix_variable
from joblet.manifest.models import JobManifest, JobSpec

LONGEST_HOSTNAME = 64
_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True)
class Indexes:
    """The indexes of a job's array. combinations: of its matrix, by place; empty without one."""

    first: int
    count: int
    combinations: tuple[Mapping[str, str], ...] = ()

    def __contains__(self, index: int) -> bool:
        return self.first <= index < self.first + self.count

    @property
    def last(self) -> int:
        return self.first + self.count - 1

    def values(self, index: int) -> Mapping[str, str]:
        """The values of the matrix' axes that this index stands for."""
        return self.combinations[index - self.first] if self.combinations else _NOTHING


def indexes_of(spec: JobSpec) -> Indexes | None:
    """None: it has no array."""
    array = spec.array
    if array is None:
        return None
    if spec.matrix:
        found = _combinations(json.dumps([spec.matrix, array.exclude]))
        return Indexes(0, len(found), found)
    first, last = array.first or 0, array.last
    assert last is not None  # a rule of the spec
    return Indexes(first, last - first + 1)


@lru_cache(maxsize=64)
def _combinations(matrix_and_exclude: str) -> tuple[Mapping[str, str], ...]:
    """From JSON, since mappings have no hash and this is asked for each index."""
    return combinations(*json.loads(matrix_and_exclude))


def needed_of(spec: JobSpec, count: int) -> int:
    """How many indexes have to succeed."""
    least = spec.array.success.at_least if spec.array is not None else None
    return count if least is None else min(least, count)


def index_manifest(manifest: JobManifest, name: str, index: int) -> JobManifest:
    """What runs for one index: the job's own spec, without what concerns the array as a whole. name: the index's own."""
    indexes = indexes_of(manifest.spec)
    assert indexes is not None
    job, spec = manifest.metadata.name, manifest.spec
    own = {
        f"{ARRAY_VARIABLES}INDEX": str(index),
        f"{ARRAY_VARIABLES}COUNT": str(indexes.count),
        f"{ARRAY_VARIABLES}FIRST": str(indexes.first),
        f"{ARRAY_VARIABLES}LAST": str(indexes.last),
        **{matrix_variable(axis): value for axis, value in indexes.values(index).items()},
    }
    hostname = spec.isolation.hostname or f"{job[: LONGEST_HOSTNAME - len(str(index)) - 1]}.{index}"
    changes = {
        "env": {"JOBLET_JOB": job, **spec.env, **own},
        "isolation": spec.isolation.model_copy(update={"hostname": hostname}),
        **{"array": None, "matrix": {}, "schedule": None, "depends_on": (), "notify": ()},
    }
    return manifest.model_copy(
        update={
            "metadata": manifest.metadata.model_copy(update={"name": name}),
            "spec": spec.model_copy(update=changes),
        }
    )
