"""The one base of Joblet's own errors: what happened, where, and what to do about it."""

from __future__ import annotations


class JobletError(Exception):
    """An error meant for people.

    what: the fact, one sentence without a full stop. where: the thing or place concerned (a path, ``file:line:column``,
    a job's name) or an empty string. todo: the next step, or an empty string.
    """

    def __init__(self, what: str, *, where: str = "", todo: str = "") -> None:
        self.what = what
        self.where = where
        self.todo = todo
        super().__init__(what, where, todo)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text} ({self.todo})" if self.todo else text
