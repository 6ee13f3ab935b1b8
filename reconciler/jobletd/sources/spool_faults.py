"""What is wrong with files of the spool, and where in them: names that somebody else has, what they say, who still writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from joblet.errors import JobletError
from joblet.manifest.errors import ManifestError
from jobletd.sources.known_files import KnownFile, KnownFiles
from jobletd.sources.ownership import Conflict
from jobletd.sources.spool_files import Absent, Loaded, Refused

WRITER_PATIENCE = 15  # looks at a file that somebody has open for writing, before that is told: some eight seconds


def faults_of(
    files: KnownFiles, conflicts: Iterable[Conflict], is_settled: Callable[[KnownFile], bool]
) -> dict[str, Refused]:
    """Of each file the first that has to be told. is_settled: whether a file has rested since it was written."""
    declared_twice: dict[str, list[ManifestError]] = {}
    for conflict in conflicts:
        message = f"{conflict.job} belongs to {conflict.owner}, which keeps it; give one of them another name"
        claimed = files.get(conflict.file)
        content = claimed.content if claimed is not None else None
        line, column = content.places.get(conflict.job, (1, 1)) if isinstance(content, Loaded) else (1, 1)
        found = ManifestError(conflict.file, line, column, 0, "metadata.name", message)
        declared_twice.setdefault(conflict.file, []).append(found)
    faults = {
        name: Refused("NameConflict", tuple(sorted(errors, key=lambda one: (one.line, one.column))))
        for name, errors in declared_twice.items()
    }
    for name in sorted(files.ailing):
        file = files[name]
        if file.gone_since is None and isinstance(file.content, Refused) and is_settled(file):
            faults[name] = file.content
        elif file.content is Absent.BEING_WRITTEN and file.busy_count > WRITER_PATIENCE:
            message = "some process still has it open for writing; it counts when that has closed it"
            faults[name] = Refused("BeingWritten", (ManifestError(name, 1, 1, 0, "", message),))
        elif file.fault is not None:
            faults[name] = file.fault
    return faults


def place_of(error: JobletError, file: KnownFile) -> tuple[int, int]:
    """Where in a file the name of that stands which was refused; its beginning if that is not known."""
    places = file.content.places if isinstance(file.content, Loaded) else {}
    return places.get(getattr(error, "job", ""), (1, 1))
