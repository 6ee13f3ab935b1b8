"""Who owns what is declared, kept with each change: whoever follows it hears of what changed and need not look at all of it."""

from __future__ import annotations

from collections.abc import Mapping

from jobletd.model import JobName, JobView, ResourceView, Source


class OwnerChanges:
    """What changed since it was last taken; at first everything is new."""

    def __init__(self, owners: Mapping[JobName, Source]) -> None:
        self._owners = owners
        self._changed = set(owners)

    def note(self, name: JobName) -> None:
        """Its owner is another one, or it has none any more."""
        self._changed.add(name)

    def take(self) -> dict[JobName, Source | None]:
        """Each of them with its owner now; None: it is gone, or being deleted."""
        changed, self._changed = self._changed, set()
        return {name: self._owners.get(name) for name in changed}


class Inventory:
    """The owner of everything that is declared and not being deleted. owners: not to be changed from outside."""

    def __init__(self) -> None:
        self.owners: dict[JobName, Source] = {}
        self._followed: list[OwnerChanges] = []

    def put(self, view: JobView | ResourceView) -> None:
        """It is declared like this now."""
        if view.deleting:
            self.remove(view.name)
            return
        known = self.owners.get(view.name)
        if known is not view.source and known != view.source:
            self.owners[view.name] = view.source
            self._tell(view.name)

    def remove(self, name: JobName) -> None:
        """It is declared no longer."""
        if self.owners.pop(name, None) is not None:
            self._tell(name)

    def changes(self) -> OwnerChanges:
        """For somebody who takes them now and then, for as long as the daemon lives."""
        changes = OwnerChanges(self.owners)
        self._followed.append(changes)
        return changes

    def _tell(self, name: JobName) -> None:
        for changes in self._followed:
            changes.note(name)
