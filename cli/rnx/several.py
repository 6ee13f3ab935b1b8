"""The same question to several nodes: in parallel, with a bound, and each failure told with its node.

What one node cannot do keeps no other from doing it. The exit code is that of the failures, 1 if they differ.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from joblet.errors import JobletError
from rnx import exit_codes
from rnx.failures import ClientError, NotFound

if TYPE_CHECKING:
    from rnx.daemon import Daemon

AT_ONCE = 16
STREAMS_AT_ONCE = 512  # which mostly wait
T = TypeVar("T")


class Several:
    """Nodes by name, in the order in which they are told. failures: what became of those that could not."""

    def __init__(self, connect: Mapping[str, Callable[[], Daemon]]) -> None:
        self._connect = connect
        self.failures: dict[str, JobletError] = {}

    def ask(self, work: Callable[[str, Daemon], T], *, at_once: int = AT_ONCE) -> dict[str, T]:
        """What each node answers, in a thread of its own; a failure goes to ``failures``. work: gets its name and connection."""
        found: dict[str, T] = {}
        pool = ThreadPoolExecutor(max_workers=max(1, min(at_once, len(self._connect))))
        try:
            asked = {name: pool.submit(self._ask_one, name, work) for name in self._connect}
            for name, answer in asked.items():
                try:
                    found[name] = answer.result()
                except JobletError as error:
                    self.failures[name] = error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C waits for nobody
            raise
        pool.shutdown()
        return found

    def _ask_one(self, name: str, work: Callable[[str, Daemon], T]) -> T:
        return work(name, self._connect[name]())

    def somewhere_is_enough(self, found: Mapping[str, object]) -> None:
        """A thing that one node has need not be on all."""
        if found:
            self.failures = {name: error for name, error in self.failures.items() if not isinstance(error, NotFound)}

    def tell(self, *codes: int) -> int:
        """Tell the failures on standard error. codes: of nodes that answered. Returns the exit code."""
        from rnx.output.terminal import printable

        sys.stdout.flush()
        for name, error in self.failures.items():
            text = f"rnx: {name}: {error.where}: {error.what}" if error.where else f"rnx: {name}: {error.what}"
            if hasattr(error, "errors"):
                text = f"rnx: {name}: {error}"
            for line in [*text.splitlines(), *([f"  {error.todo}"] if error.todo else [])]:
                print(printable(line), file=sys.stderr)
        bad = {int(getattr(error, "exit_code", exit_codes.INVALID)) for error in self.failures.values()}
        bad |= {code for code in codes if code != exit_codes.OK}
        return exit_codes.OK if not bad else bad.pop() if len(bad) == 1 else exit_codes.FAILURE


def merged(found: Mapping[str, list[T]], data: Callable[[T], dict[str, Any]]) -> list[dict[str, Any]]:
    """One list for ``-o json`` and ``-o yaml``: each as from one node, and whose it is."""
    return [{"node": name, **data(one)} for name, items in found.items() for one in items]


def with_node(found: Mapping[str, list[T]], row: Callable[[T], list[str]]) -> list[list[str]]:
    """Rows of one table, each with its node first."""
    return [[name, *row(one)] for name, items in found.items() for one in items]


def one_node_only() -> ClientError:
    from rnx.failures import InvalidRequest

    return InvalidRequest(
        "this command talks to one node",
        todo="give one --node; apply, get, list, log and others take --node a,b and --all-nodes",
    )
