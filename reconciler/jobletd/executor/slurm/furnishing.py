"""What an attempt needs beside its batch script, put into its directory before Slurm hears of it: secrets, uploaded contents.

<shared>/blobs/sha256/<sha256>               a content that some attempt uses, or used within the last hour
<shared>/attempts/<attempt>/contents/<sha256>   a link to it: as long as an attempt has one, it is not removed
                           /secrets             sealed, until its node takes them

Links count for us who uses a content, whichever daemon hands attempts to the cluster. Where the shared directory has none, each
attempt gets a copy. All of it waits for disks: call it in a thread.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress

from joblet.errors import JobletError
from joblet.manifest import JobManifest
from jobletd.blobs.copying import copy_checked
from jobletd.blobs.naming import contents_of
from jobletd.executor.slurm.settings import SlurmSettings
from jobletd.executor.slurm.tracking import Tracked
from jobletd.executor.slurm_node import sealed_secrets
from jobletd.executor.slurm_node.place import Place
from jobletd.executor.slurm_node.volumes import volume_directory, why_not

UNUSED_SECONDS = 3600.0
TRIES = 3
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK, errno.ENOSYS)


class Unfurnished(JobletError):
    """Something that the job needs is not on this host."""


class NotYet(JobletError):
    """Another attempt has what it needs."""


class NeedsSecrets(JobletError):
    """The values were held by a daemon before this one, in memory alone: the attempt has to be submitted anew."""


def furnish(settings: SlurmSettings, tracked: Tracked) -> None:
    """Raises Unfurnished, NotYet, NeedsSecrets, ContentDamaged; OSError of the shared directory."""
    place = Place(settings.attempt_directory(tracked.attempt_id))
    check_volumes(settings, tracked)
    give_contents(settings, tracked.manifest, place)
    key = sealed_secrets.key_in(tracked.document)
    if not key:
        return
    if tracked.secrets is not None:
        sealed_secrets.put(place, tracked.attempt_id, key, tracked.secrets)
    elif not sealed_secrets.are_there(place):
        raise NeedsSecrets("its secrets are not in memory any more", where=tracked.attempt_id)


def check_volumes(settings: SlurmSettings, tracked: Tracked) -> None:
    """Whether it can have them now: it does not take a place on a node to wait there."""
    shared = settings.shared_directory
    if shared is None:  # what is in it was refused
        return
    for volume in tracked.manifest.spec.volumes:
        if not os.path.isdir(volume_directory(shared, volume.name)):
            os.stat(shared)  # if it is away, all is
            todo = "declare another one with executor: slurm, or set spec.executor: local"
            raise Unfurnished("is not one of the cluster", where=f"volume {volume.name}", todo=todo)
    if why := why_not(shared, tracked.manifest, tracked.attempt_id):
        raise NotYet(why)


def give_contents(settings: SlurmSettings, job: JobManifest, place: Place) -> None:
    store = _store(settings)
    for sha256, size in dict(contents_of(job)).items():
        target = place.content(sha256)
        if os.path.exists(target):
            continue
        for directory in (store, os.path.dirname(target)):
            os.makedirs(directory, 0o700, exist_ok=True)
        _link(settings, f"{store}/{sha256}", target, sha256, size)


def _link(settings: SlurmSettings, shared: str, target: str, sha256: str, size: int) -> None:
    for _ in range(TRIES):
        if not os.path.exists(shared):
            _copy(settings, shared, sha256, size)
        try:
            os.utime(shared)
            os.link(shared, target)
        except FileNotFoundError:
            continue  # it was removed for unused just now
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _copy(settings, target, sha256, size)
        return
    raise OSError(errno.EAGAIN, "is removed as soon as it is there", shared)


def _copy(settings: SlurmSettings, target: str, sha256: str, size: int) -> None:
    source = f"{settings.contents_directory}/{sha256}"
    try:
        copy_checked(source, target, sha256, size)
    except FileNotFoundError:
        if os.path.exists(source):
            raise  # the shared directory is away
        raise Unfurnished(
            f"the content {sha256[:12]}... is not on this host any more",
            where=source,
            todo="apply the manifest again, which uploads it",
        ) from None


def drop_unused_contents(settings: SlurmSettings, now: float | None = None) -> int:
    """Remove what no attempt has a link to and none was given for an hour. Returns how many. Raises OSError."""
    now = time.time() if now is None else now
    removed = 0
    with suppress(FileNotFoundError):
        for entry in os.scandir(_store(settings)):
            with suppress(FileNotFoundError):
                found = entry.stat()
                if found.st_nlink == 1 and now - found.st_mtime > UNUSED_SECONDS:
                    os.unlink(entry.path)
                    removed += 1
    return removed


def _store(settings: SlurmSettings) -> str:
    return f"{settings.shared_directory}/blobs/sha256"
