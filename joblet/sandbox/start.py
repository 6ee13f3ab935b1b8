"""Where the launcher's interpreter begins: it lays out its memory before it loads what its inits will run.

CPython keeps small objects by their size in pools of 16 KB, and puts a new one into whatever pool has room. An interpreter that
has just started has gaps everywhere. The objects that an init counts its references in would fill them, one here and one there,
and each page with one of them is a page of its own for each init. With the gaps filled they lie side by side.
"""

import ctypes  # noqa: F401  (first, since it is large, and inits use little of it)
import sys

_POOL_BYTES = 16384
_POOL_HEADER_BYTES = 48
_STEP_BYTES = 16
_LARGEST_BYTES = 512
_EMPTY_BYTES_OBJECT = sys.getsizeof(b"")
_AT_MOST = 4096  # of a size, should memory be laid out in another way: then they are of no use, and do no harm
_FILLING: list[bytes] = []  # for as long as the interpreter lives


def fill_gaps() -> None:
    """For each size: objects that nobody needs, until one is the first in a new pool."""
    for size in range(_EMPTY_BYTES_OBJECT // _STEP_BYTES * _STEP_BYTES + _STEP_BYTES, _LARGEST_BYTES + 1, _STEP_BYTES):
        for _ in range(_AT_MOST):
            filling = bytes(size - _EMPTY_BYTES_OBJECT)
            _FILLING.append(filling)
            if id(filling) % _POOL_BYTES == _POOL_HEADER_BYTES:
                break


def main() -> None:
    """Entry point: ``python -I -S -c "... main()" FD``."""
    fill_gaps()
    from joblet.sandbox.launcher import main as launch

    launch()
