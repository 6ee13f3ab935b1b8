"""Which owners are files of one GitSource, and what a commit claims for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from joblet.manifest import Manifest, key_of
from jobletd.model import JobName, Source
from jobletd.sources.desired_jobs import DesiredJobs
from jobletd.sources.following import Follower
from jobletd.sources.git.repository import SHORT
from jobletd.sources.git.tree import Tree
from jobletd.sources.ownership import Claim

KIND = "git"


@dataclass(frozen=True, slots=True)
class GitScope:
    """See ``ownership.Scope``. commit: the one whose files claim."""

    name: str
    commit: str

    def file_of(self, owner: Source) -> str | None:
        return owner.file if owner.kind == KIND and owner.owner == f"{KIND}:{self.name}" else None

    def source_of(self, file: str) -> Source:
        return Source(KIND, f"{self.name}@{self.commit[:SHORT]}:{file}")


def follower_of(name: str, desired: DesiredJobs) -> Follower:
    """Who acts for a GitSource."""
    place = f"the repository of gitsource/{name}"
    return Follower(desired, GitScope(name, ""), client=f"gitsource/{name}", place=place)


def claims_of(tree: Tree) -> list[Claim]:
    return [
        Claim(file, tuple(JobName(key_of(one)) for one in manifests), (0, file))
        for file, manifests in tree.manifests.items()
    ]


def sources_of(chosen: Mapping[str, list[Manifest]], scope: GitScope) -> dict[JobName, Source]:
    return {JobName(key_of(one)): scope.source_of(file) for file, manifests in chosen.items() for one in manifests}
