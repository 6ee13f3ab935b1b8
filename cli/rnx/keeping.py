"""What ``rnx volume``, ``rnx network`` and ``rnx secret`` share: making one that is new, waiting for it, removing some."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rnx.daemon import Daemon

PAUSE_SECONDS = 0.1


def refuse_what_is_there(daemon: Daemon, kind: str, name: str, *, todo: str) -> None:
    """Raises Conflict if there is one of that name already."""
    from rnx.failures import Conflict, NotFound

    try:
        daemon.resource(kind, name)
    except NotFound:
        return
    raise Conflict(f"there is a {kind.lower()} {name} already", todo=todo)


def make(
    daemon: Daemon, kind: str, name: str, spec: Mapping[str, object], *, flags: Mapping[str, str], within_seconds: float
) -> None:
    """Apply a manifest of it, and wait until it is ready. flags: what each field of the spec is called on the command line.

    Raises InvalidRequest in terms of what was typed, ClientError with the reason if it can't be had, or not soon.
    """
    import json

    from rnx.failures import InvalidRequest

    filename = f"rnx-{kind.lower()}.json"
    manifest = {"apiVersion": "joblet/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    try:
        daemon.apply(json.dumps(manifest).encode(), filename=filename)
    except InvalidRequest as error:
        what = name_flags(error.what, filename, {"metadata.name": "NAME", **flags})
        raise InvalidRequest(what, todo=f"rnx {kind.lower()} create --help shows examples") from error
    wait_until_ready(daemon, kind, name, within_seconds)
    print(f"{kind.lower()}/{name} created")


def wait_until_ready(daemon: Daemon, kind: str, name: str, within_seconds: float) -> None:
    """Raises ClientError with the reason if it can't be had, or not soon."""
    from rnx.failures import ClientError

    word = kind.lower()
    todo = f"it is tried again; rnx {word} list shows how it stands, rnx {word} remove {name} gives up"
    deadline = time.monotonic() + within_seconds
    while time.monotonic() < deadline:
        ready = next((one for one in daemon.resource(kind, name).conditions if one.type == "Ready"), None)
        if ready is not None and ready.status == "True":
            return
        if ready is not None:
            raise ClientError(f"{word} {name} is not ready: {ready.message}", todo=todo)
        time.sleep(PAUSE_SECONDS)
    raise ClientError(f"{word} {name} is not ready after {within_seconds:g} s", todo=todo)


def name_flags(text: str, filename: str, flags: Mapping[str, str]) -> str:
    """An error about the manifest that was composed here, told in terms of what was typed."""
    lines = []
    for line in text.splitlines():
        path, colon, rest = line.removeprefix(f"{filename}:1:").partition(": ")[2].partition(": ")
        flag = flags.get(path)
        lines.append(f"{flag}: {rest}" if flag and colon else line)
    return "\n".join(lines)


def remove_all(daemon: Daemon, kind: str, names: Sequence[str]) -> int:
    """Try each, even if one fails. Returns the exit code of the first failure."""
    from rnx import exit_codes
    from rnx.failures import ClientError
    from rnx.main import report

    code = exit_codes.OK
    for name in names:
        try:
            daemon.delete_resource(kind, name)
            print(f"{kind.lower()}/{name} deleted", flush=True)
        except ClientError as error:
            code = code or report(error)
    return code
