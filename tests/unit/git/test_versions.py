"""Which tag is the highest version in a range."""

from __future__ import annotations

import pytest

from joblet.manifest.git_names import check_range
from jobletd.sources.git.versions import highest

TAGS = ["v0.9.0", "1.0.0", "v1.2.3", "1.2.10", "v1.3.0-rc.1", "2.0.0", "latest", "v3", "release-4.0.0"]


@pytest.mark.parametrize(
    ("wanted", "tag"),
    [
        ("*", "2.0.0"),
        ("1", "1.2.10"),
        ("1.0", "1.0.0"),
        ("=1.2.3", "v1.2.3"),
        ("^1.0", "1.2.10"),
        ("^0.9.0", "v0.9.0"),
        ("~1.2.3", "1.2.10"),
        ("~1", "1.2.10"),
        (">=1.0.0 <1.2.10", "v1.2.3"),
        (">1.2", "2.0.0"),
        ("<=1.2", "1.2.10"),
        (">2", None),
        ("^1.3", None),  # a release candidate is in no range
    ],
)
def test_the_highest_version_in_a_range_is_chosen(wanted: str, tag: str | None) -> None:
    assert highest(TAGS, check_range(wanted)) == tag


@pytest.mark.parametrize("text", ["", "latest", "1.2.3.4", ">= 1.0", "^1.0 || ^2.0", "01.2"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a range of versions"):
        check_range(text)
