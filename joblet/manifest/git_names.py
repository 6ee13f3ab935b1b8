"""Names of git in a manifest: where a repository is, which commit of it, which of its directories. Errors are ValueError."""

from __future__ import annotations

import re

from joblet.manifest.quantities import shown

_HOST = r"[A-Za-z0-9]([-A-Za-z0-9.]{0,251}[A-Za-z0-9])?"
URL_PATTERN = (
    rf"^(https://({_HOST})(:[0-9]{{1,5}})?/[!-~]+|ssh://([A-Za-z0-9._-]+@)?({_HOST})(:[0-9]{{1,5}})?/[!-~]+"
    rf"|[A-Za-z0-9._-]+@({_HOST}):(?!/*-)[!-~]+|file:///[!-~]+)$"
)
REF_PATTERN = r"^(?![-/.@])(?!.*(\.\.|//|/\.|@\{|\.lock(/|$)))[^\u0000-\u0020\u007f~^:?*\[\\]{1,200}(?<![/.])$"
COMMIT_PATTERN = r"^([0-9a-f]{40}|[0-9a-f]{64})$"
TREE_PATH_PATTERN = r"^(\.|(?!/)(?!.*//)(?!(.*/)?\.{1,2}(/|$))[^\u0000]*[^/\u0000])$"
_VERSION = r"(0|[1-9][0-9]{0,8})"
_COMPARISON = rf"(\^|~|>=|<=|>|<|=)?{_VERSION}(\.{_VERSION}){{0,2}}"
RANGE_PATTERN = rf"^(\*|{_COMPARISON}( {_COMPARISON}){{0,7}})$"


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern.replace("$", r"\Z"), re.DOTALL)


_URL, _REF, _COMMIT = _compiled(URL_PATTERN), _compiled(REF_PATTERN), _compiled(COMMIT_PATTERN)
_TREE_PATH, _RANGE = _compiled(TREE_PATH_PATTERN), _compiled(RANGE_PATTERN)


def check_url(value: object) -> str:
    """Where a repository is: by https, ssh, or in a directory of this host. Without a password in it."""
    text = _text(value, "the URL of a repository")
    if _URL.match(text):
        return text
    if re.match(r"https?://[^/]*@", text):
        raise ValueError("holds a user or password; name a Secret with them in spec.credentials")
    if text.startswith(("http://", "git://")):
        raise ValueError(f"{shown(text)} is not encrypted (use https:// or ssh://)")
    forms = "https://host/path, ssh://user@host/path, user@host:path or file:///path"
    raise ValueError(f"{shown(text)} is not the URL of a repository (use {forms})")


def check_ref(value: object) -> str:
    """The short name of a branch or tag, as git-check-ref-format(1) has it."""
    text = _text(value, "the name of a branch or tag")
    if not _REF.match(text):
        raise ValueError(f"{shown(text)} is not the name of a branch or tag")
    return text.removeprefix("refs/heads/").removeprefix("refs/tags/")


def check_commit(value: object) -> str:
    """A commit's whole id."""
    text = _text(value, "a commit's id")
    if not _COMMIT.match(text):
        raise ValueError(f"{shown(text)} is not a commit's id (all 40 digits 0-9 and a-f)")
    return text


def check_range(value: object) -> str:
    """A range of versions: comparisons that must all hold."""
    text = _text(value, "a range of versions")
    if not _RANGE.match(text):
        raise ValueError(f"{shown(text)} is not a range of versions (use ^1.2, ~1.2.3, or >=1.4.0 <2.0.0)")
    return text


def check_tree_path(value: object) -> str:
    """A directory of a repository, relative to its top; ``.`` is the top itself."""
    text = _text(value, "a path")
    if not _TREE_PATH.match(text):
        raise ValueError(
            f"{shown(text)} is not a directory of a repository (relative, without . and ..; . alone is its top)"
        )
    return text


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not {what}")
    return value
