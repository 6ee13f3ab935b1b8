"""Rules that concern several fields of a spec at once.

They work on the raw mapping and pass over what is malformed (the fields' own checks report that), so that a file's
other faults never hide them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from joblet.manifest.array import array_problems
from joblet.manifest.engine import engine_problems
from joblet.manifest.hook import hook_problems
from joblet.manifest.probe import probe_problems
from joblet.manifest.quantities import parse_duration, shown
from joblet.manifest.schedule_values import schedule_problems


@dataclass(frozen=True, slots=True)
class Problem:
    """One broken rule. path: keys and list positions below the spec."""

    path: tuple[str | int, ...]
    message: str


def cross_field_problems(spec: Mapping[str, object]) -> list[Problem]:
    """All broken rules of a raw spec, as read from YAML."""
    return [problem for rule in _RULES for problem in rule(spec)]


def _command_or_script(spec: Mapping[str, object]) -> Iterator[Problem]:
    if "command" in spec and "script" in spec:
        yield Problem(("script",), "command is given too; exactly one of command and script is allowed")
    elif "command" not in spec and "script" not in spec:
        yield Problem((), "needs a command or a script")
    command = spec.get("command")
    if isinstance(command, (list, tuple)) and command and command[0] == "":
        yield Problem(("command", 0), "the command's name is empty")


def _timeouts(spec: Mapping[str, object]) -> Iterator[Problem]:
    attempt, run = _seconds(spec.get("attemptTimeout")), _seconds(spec.get("timeout"))
    if attempt is not None and run is not None and attempt > run:
        yield Problem(
            ("attemptTimeout",),
            f"{shown(spec['attemptTimeout'])} is longer than timeout, {shown(spec['timeout'])}, that of all together",
        )


def _retry(spec: Mapping[str, object]) -> Iterator[Problem]:
    retry = spec.get("retry")
    if not isinstance(retry, Mapping):
        return
    limit, restart = retry.get("limit"), spec.get("restart", "Never")
    if isinstance(limit, int) and limit > 0 and restart in ("OnFailure", "Always"):
        yield Problem(
            ("retry", "limit"),
            f"works only with restart: Never; restart: {restart} starts the command again without a limit",
        )
    first, longest = _seconds(retry.get("initial", "10s")), _seconds(retry.get("max", "5m"))
    if first is not None and longest is not None and first > longest:
        key = "initial" if "initial" in retry else "max"
        yield Problem(("retry", key), "the first pause (initial) is longer than the longest (max)")
    wanted, refused = retry.get("onExitCodes"), retry.get("neverOnExitCodes")
    if isinstance(wanted, (list, tuple)) and isinstance(refused, (list, tuple)):
        for position, code in enumerate(refused):
            if code in wanted:
                yield Problem(("retry", "neverOnExitCodes", position), f"{shown(code)} stands in onExitCodes too")


def _repeated(spec: Mapping[str, object]) -> Iterator[Problem]:
    retry, isolation = spec.get("retry"), spec.get("isolation")
    for parent, key, holder in (
        ("retry", "onExitCodes", retry),
        ("retry", "neverOnExitCodes", retry),
        ("isolation", "capabilities", isolation),
        ("isolation", "upkeep", isolation),
    ):
        values = holder.get(key) if isinstance(holder, Mapping) else None
        if not isinstance(values, (list, tuple)):
            continue
        seen: set[object] = set()
        for position, value in enumerate(values):
            if not isinstance(value, (str, int)):
                continue
            if value in seen:
                yield Problem((parent, key, position), f"{shown(value)} is given twice")
            seen.add(value)


def _traffic_limits(spec: Mapping[str, object]) -> Iterator[Problem]:
    limits, isolation = spec.get("limits"), spec.get("isolation")
    network = isolation.get("network", "none") if isinstance(isolation, Mapping) else "none"
    if isinstance(limits, Mapping) and limits.get("network") and network in ("none", "host"):
        yield Problem(("limits", "network"), f"works only with a network of the job's own, not with network: {network}")


def _files(spec: Mapping[str, object]) -> Iterator[Problem]:
    files = spec.get("files")
    if not isinstance(files, (list, tuple)):
        return
    paths: dict[str, int] = {}
    for position, file in enumerate(files):
        path = file.get("path") if isinstance(file, Mapping) else None
        if isinstance(file, Mapping):
            yield from _file(position, file)
        if not isinstance(path, str):
            continue
        if path in paths:
            yield Problem(("files", position, "path"), f"{shown(path)} is given twice")
        paths.setdefault(path, position)
    for path, position in paths.items():
        parent = path.rpartition("/")[0]
        while parent:
            if parent in paths:
                yield Problem(
                    ("files", position, "path"), f"{shown(path)} lies below {shown(parent)}, which is a file too"
                )
                break
            parent = parent.rpartition("/")[0]


def _volumes(spec: Mapping[str, object]) -> Iterator[Problem]:
    volumes, files = spec.get("volumes"), spec.get("files")
    if not isinstance(volumes, (list, tuple)):
        return
    names: set[str] = set()
    paths: dict[str, int] = {}
    for position, volume in enumerate(volumes):
        name, path = (volume.get("name"), volume.get("path")) if isinstance(volume, Mapping) else (None, None)
        if isinstance(name, str):
            if name in names:
                yield Problem(("volumes", position, "name"), f"{shown(name)} is given twice")
            names.add(name)
        if not isinstance(path, str):
            continue
        path = path.rstrip("/")
        if path in paths:
            yield Problem(("volumes", position, "path"), f"{shown(path)} is given twice")
        elif other := next((one for one in paths if _nested(one, path)), None):
            yield Problem(("volumes", position, "path"), f"{shown(path)} and {shown(other)} lie one below the other")
        paths.setdefault(path, position)
    for file in files if isinstance(files, (list, tuple)) else ():
        name = file.get("path") if isinstance(file, Mapping) else None
        for path, position in paths.items():
            if isinstance(name, str) and (path == (place := f"/work/{name}") or _nested(path, place)):
                yield Problem(("volumes", position, "path"), f"{shown(path)} is in the way of the file {shown(name)}")


def _nested(one: str, other: str) -> bool:
    """Whether one of these paths lies below the other."""
    return one.startswith(f"{other}/") or other.startswith(f"{one}/")


_WAYS = ("content", "from", "sha256", "link")


def _file(position: int, file: Mapping[str, object]) -> Iterator[Problem]:
    given = [way for way in _WAYS if way in file]
    if len(given) != 1:
        what = f"has {' and '.join(given)}" if given else "has no content"
        yield Problem(("files", position), f"{what}; exactly one of {', '.join(_WAYS)} is allowed")
    elif ("size" in file) != (given == ["sha256"]):
        yield Problem(("files", position), "sha256 and size go together")
    path, link = file.get("path"), file.get("link")
    if link is not None and "mode" in file:
        yield Problem(("files", position, "mode"), "a link has no mode of its own")
    if isinstance(path, str) and isinstance(link, str) and leads_out(path, link):
        yield Problem(("files", position, "link"), f"{shown(link)} leads out of the workspace")


def leads_out(path: str, target: str) -> bool:
    """Whether a link at ``path``, relative to a directory, leads out of that directory on its way to ``target``."""
    depth = path.count("/")
    for part in target.split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        if depth < 0:
            return True
    return target.startswith("/")


def _secrets(spec: Mapping[str, object]) -> Iterator[Problem]:
    secrets, env = spec.get("secrets"), spec.get("env")
    if not isinstance(secrets, (list, tuple)):
        return
    taken: set[tuple[str, str]] = {("env", name) for name in env} if isinstance(env, Mapping) else set()
    for position, secret in enumerate(secrets):
        if not isinstance(secret, Mapping):
            continue
        if "env" in secret and "path" in secret:
            yield Problem(("secrets", position, "path"), "env is given too; write two items for a variable and a file")
        for field in ("env", "path"):
            name = secret.get(field)
            if not isinstance(name, str):
                continue
            if (field, name) in taken:
                where = "in spec.env or another secret" if field == "env" else "in another secret"
                yield Problem(("secrets", position, field), f"{shown(name)} is given {where} too")
            taken.add((field, name))


def _schedule(spec: Mapping[str, object]) -> Iterator[Problem]:
    yield from (Problem(path, message) for path, message in schedule_problems(spec))


def _dependencies(spec: Mapping[str, object]) -> Iterator[Problem]:
    dependencies = spec.get("dependsOn")
    if not isinstance(dependencies, (list, tuple)):
        return
    seen: set[str] = set()
    for position, one in enumerate(dependencies):
        name = one.get("job") if isinstance(one, Mapping) else None
        if isinstance(name, str):
            if name in seen:
                yield Problem(("dependsOn", position, "job"), f"{shown(name)} is given twice")
            seen.add(name)


def _hooks(spec: Mapping[str, object]) -> Iterator[Problem]:
    hooks = spec.get("notify")
    for position, hook in enumerate(hooks if isinstance(hooks, (list, tuple)) else ()):
        if isinstance(hook, Mapping):
            yield from (Problem(*found) for found in hook_problems(position, hook))


def _engine(spec: Mapping[str, object]) -> Iterator[Problem]:
    yield from (Problem(*found) for found in engine_problems(spec))


def _probe(spec: Mapping[str, object]) -> Iterator[Problem]:
    yield from (Problem(*found) for found in probe_problems(spec))


def _array(spec: Mapping[str, object]) -> Iterator[Problem]:
    yield from (Problem(*found) for found in array_problems(spec))


def _seconds(value: object) -> float | None:
    try:
        return parse_duration(value)
    except ValueError:
        return None


_RULES: tuple[Callable[[Mapping[str, object]], Iterator[Problem]], ...] = (
    _command_or_script,
    _timeouts,
    _retry,
    _repeated,
    _traffic_limits,
    _files,
    _volumes,
    _secrets,
    _schedule,
    _dependencies,
    _hooks,
    _probe,
    _array,
    _engine,
)
