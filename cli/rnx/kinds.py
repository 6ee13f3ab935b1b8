"""What people call the kinds of manifest: ``volume``, ``volumes``; and ``volume/data`` for one of them."""

from __future__ import annotations

from rnx.failures import InvalidRequest


def find_kind(word: str) -> str | None:
    """``Volume`` for volume or volumes, whatever the case; None for a word that names no kind."""
    from joblet.manifest import MODELS

    word = word.lower()
    return next((kind for kind in MODELS if word in (kind.lower(), f"{kind.lower()}s")), None)


def kind_of(word: str) -> str:
    """The same. Raises InvalidRequest for a word that names no kind."""
    from joblet.manifest import MODELS, nearest

    if kind := find_kind(word):
        return kind
    best = nearest(word.lower(), [kind.lower() for kind in MODELS])
    hint = f"did you mean {best}?" if best else f"kinds: {', '.join(kind.lower() for kind in MODELS)}"
    raise InvalidRequest(f"{word!r} is no kind of manifest", todo=hint)


def split_key(text: str) -> tuple[str, str]:
    """Kind and name of ``volume/data``; a name alone is a job's. Raises InvalidRequest."""
    word, slash, name = text.partition("/")
    return (kind_of(word), name) if slash else ("Job", text)
