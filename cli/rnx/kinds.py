"""What people call the kinds of manifest: ``volume``, ``volumes``; and ``volume/data`` for one of them."""

from __future__ import annotations

from rnx.failures import InvalidRequest

_RUNNABLE = {"job": "Job", "workflow": "Workflow"}


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


def split_ref(text: str) -> tuple[str, str]:
    """Kind and name of what runs: ``workflow/nightly``, ``job/hello``; anything without a kind is a job, a run or an index.

    Raises InvalidRequest for what cannot run.
    """
    word, slash, name = text.partition("/")
    if not slash:
        return "Job", text
    kind = _RUNNABLE.get(word) or kind_of(word)  # most people need not wait for the models to be loaded
    if kind not in _RUNNABLE.values():
        raise InvalidRequest(f"{text}: a {kind} does not run", todo=f"rnx describe {text} shows it")
    return kind, name


def split_key(text: str) -> tuple[str, str]:
    """Kind and name of ``volume/data``; a name alone is a job's. Raises InvalidRequest."""
    word, slash, name = text.partition("/")
    return (kind_of(word), name) if slash else ("Job", text)
