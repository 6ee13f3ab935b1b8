"""What a job waits for: how the runs of other jobs have to have ended."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

from pydantic import Field

from joblet.manifest import fields as f
from joblet.manifest.choices import DependencyOutcome
from joblet.manifest.model_base import ManifestModel

K = TypeVar("K", bound=Hashable)


class Dependency(ManifestModel):
    """Another job, and how its latest run has to have ended before a run of this one starts."""

    job: f.Name = Field(description="The other job's name.")
    outcome: f.DependencyOutcomeChoice = Field(
        default=DependencyOutcome.SUCCEEDED,
        description="Succeeded: its command exited with 0; Failed: it failed; Finished: it is over, however it ended.",
    )


def find_cycle(edges: Mapping[K, Iterable[K]]) -> tuple[K, ...]:
    """A cycle among these edges, its first member once more at its end; empty if there is none."""
    done: set[K] = set()
    for start in edges:
        path: list[K] = []
        on_path: set[K] = set()
        stack = [(start, iter(edges.get(start, ())))] if start not in done else []
        while stack:
            node, following = stack[-1]
            if node not in on_path:
                path.append(node)
                on_path.add(node)
            step = next((one for one in following if one not in done), None)
            if step is None:
                done.add(node)
                on_path.discard(path.pop())
                stack.pop()
            elif step in on_path:
                return (*path[path.index(step) :], step)
            else:
                stack.append((step, iter(edges.get(step, ()))))
    return ()
