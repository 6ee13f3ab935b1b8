"""Label selectors as people know them from Kubernetes."""

from __future__ import annotations

import pytest

from jobletd.selectors import InvalidSelector, LabelSelector

LABELS = {"team": "data", "env": "prod", "tier": "", "example.org/owner": "anna"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("team=data", True),
        ("team==data", True),
        ("team = data , env = prod", True),
        ("team=web", False),
        ("team!=web", True),
        ("team!=data", False),
        ("absent!=x", True),
        ("absent=x", False),
        ("env in (dev, prod)", True),
        ("env in (dev)", False),
        ("env notin (dev,test)", True),
        ("env notin (prod)", False),
        ("absent notin (a)", True),
        ("team", True),
        ("absent", False),
        ("!absent", True),
        ("! team", False),
        ("tier=", True),
        ("example.org/owner=anna", True),
        ("team=data,env in (dev,prod),!legacy", True),
        ("team=data,env in (dev,prod),legacy", False),
    ],
)
def test_a_selector_matches(text: str, matches: bool) -> None:
    assert LabelSelector.parse(text).matches(LABELS) is matches


@pytest.mark.parametrize(
    "text",
    [
        "team=data env=prod",
        "=x",
        "team=da ta",
        "in (a)(b)",
        "env in dev",
        "env in (a",
        "a,,b",
        "team~x",
        ",",
        "a,",
    ],
)
def test_what_is_no_selector_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(InvalidSelector, match="tier in"):
        LabelSelector.parse(text)
