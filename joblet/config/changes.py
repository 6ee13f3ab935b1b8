"""What a changed configuration changes: keys that count at once, keys that wait for a restart, and what is in force then."""

from __future__ import annotations

from dataclasses import dataclass

from joblet.config.effective import sections
from joblet.config.section import RELOAD, Reload
from joblet.config.server import ServerConfig


@dataclass(frozen=True, slots=True)
class Changes:
    """Dotted paths of changed keys. in_force: the new configuration, with the old values of what needs a restart."""

    at_once: tuple[str, ...]
    restart: tuple[str, ...]
    in_force: ServerConfig


def compare(old: ServerConfig, new: ServerConfig) -> Changes:
    """What changes from ``old``, which is in force, to ``new``."""
    at_once: list[str] = []
    restart: list[str] = []
    update: dict[str, object] = {}
    if old.executor != new.executor:
        restart.append("executor")
    for name, section in sections(new):
        before = getattr(old, name)
        taken: dict[str, object] = {}
        for field, info in type(section).model_fields.items():
            value = getattr(section, field)
            if value == getattr(before, field):
                continue
            extra = info.json_schema_extra
            if isinstance(extra, dict) and extra.get(RELOAD) == Reload.AT_ONCE:
                at_once.append(f"{name}.{info.alias}")
                taken[field] = value
            else:
                restart.append(f"{name}.{info.alias}")
        update[name] = before.model_copy(update=taken)
    return Changes(tuple(at_once), tuple(restart), old.model_copy(update=update))
