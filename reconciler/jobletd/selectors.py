"""Label selectors: ``team=data,env!=dev,tier in (a,b),!legacy``, as Kubernetes has them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from joblet.errors import JobletError

_TERM = re.compile(
    r"\s*(?:(?P<absent>!)\s*(?P<key0>[\w./-]+)"
    r"|(?P<key1>[\w./-]+)\s+(?P<set>in|notin)\s*\((?P<values>[^()]*)\)"
    r"|(?P<key2>[\w./-]+)\s*(?P<op>==|=|!=)\s*(?P<value>[\w.-]*)"
    r"|(?P<key3>[\w./-]+))\s*(?:,|$)"
)


class InvalidSelector(JobletError):
    """The text is no label selector."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One term. values: None means that the key's presence alone is meant."""

    key: str
    values: frozenset[str] | None
    negated: bool

    def matches(self, labels: Mapping[str, str]) -> bool:
        found = self.key in labels if self.values is None else labels.get(self.key) in self.values
        return found is not self.negated


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All of its requirements hold."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.matches(labels) for requirement in self.requirements)

    @classmethod
    def parse(cls, text: str) -> LabelSelector:
        """Raises InvalidSelector, naming the place."""
        found: list[Requirement] = []
        position = 0
        ends_with_comma = text.rstrip().endswith(",")
        while position < len(text.rstrip()):
            match = _TERM.match(text, position)
            if match is None or (ends_with_comma and match.end() == len(text)):
                raise InvalidSelector(
                    f"not a label selector at {text[position:]!r}",
                    where=text,
                    todo="use team=data, env!=dev, tier in (a,b), tier notin (a,b), legacy or !legacy, joined by commas",
                )
            found.append(_requirement(match))
            position = match.end()
        return cls(tuple(found))


def _requirement(match: re.Match[str]) -> Requirement:
    if match["key0"]:
        return Requirement(match["key0"], None, negated=True)
    if match["key1"]:
        values = frozenset(value.strip() for value in match["values"].split(","))
        return Requirement(match["key1"], values, negated=match["set"] == "notin")
    if match["key2"]:
        return Requirement(match["key2"], frozenset({match["value"]}), negated=match["op"] == "!=")
    return Requirement(match["key3"], None, negated=False)
