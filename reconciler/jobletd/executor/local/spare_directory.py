"""An attempt's directory, made while there is nothing else to do: some file systems take long to make one, none to rename it."""

from __future__ import annotations

import os
from contextlib import suppress

NAME = "spare-attempt"


class SpareDirectory:
    """Beside the directory of all attempts, in the same file system."""

    def __init__(self, beside: str) -> None:
        self._path = f"{beside}/{NAME}"
        self._there = False

    def make(self) -> None:
        """Without one, ``become`` makes its own. What an earlier daemon left is taken over: it is empty."""
        with suppress(OSError):
            with suppress(FileExistsError):
                os.mkdir(self._path, 0o700)
            self._there = True

    def become(self, directory: str) -> None:
        """Make ``directory``, which must not be there. Raises OSError."""
        there, self._there = self._there, False
        if there and not os.path.lexists(directory):
            with suppress(OSError):
                os.rename(self._path, directory)
                return
        os.mkdir(directory, 0o700)

    def remove(self) -> None:
        self._there = False
        with suppress(OSError):
            os.rmdir(self._path)
