"""What each layer of the sandbox costs a launch of ``/bin/true``: everything on, beside the same without that layer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from joblet.cgroup import CgroupLimits
from tests.bench.report import BenchResult, Table
from tests.bench.rounds import alternate
from tests.bench.sandbox import LIMITS, Sandbox

ROUNDS = 40
WITHIN_SECONDS = 50.0
SPARE_SECONDS = 0.05  # by then the launcher has its next spare
TRUE = ["/bin/true"]
# The launch spec without a layer. The user and mount namespaces are not among them: there is no sandbox without.
WITHOUT: dict[str, dict[str, Any]] = {
    "the seccomp filter": {"seccomp": {"program": b""}},
    "a network namespace": {"network": "host"},
    "files of its own in /etc": {"etc": {}},
    "resource limits (setrlimit)": {"rlimits": {}},
}
WITH: dict[str, dict[str, Any]] = {
    "a capability": {"capabilities": ["NET_BIND_SERVICE"]},
    "a secret": {"secrets": [("token/value", b"open-sesame")]},
    "ten files in the workspace": {
        "files": [{"path": f"file-{number}", "mode": 0o644, "content": "text"} for number in range(10)]
    },
}


def run() -> BenchResult:
    with ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox(LIMITS))
        unlimited = stack.enter_context(Sandbox(CgroupLimits()))
        peers: dict[str, Callable[[], object]] = {"everything": lambda: sandbox.run(TRUE)}
        peers["without cgroup limits"] = lambda: unlimited.run(TRUE)
        for name, changes in WITHOUT.items():
            peers[f"without {name}"] = lambda changes=changes: sandbox.run(TRUE, **changes)  # type: ignore[misc]
        for name, changes in WITH.items():
            peers[f"with {name}"] = lambda changes=changes: sandbox.run(TRUE, **changes)  # type: ignore[misc]
        timings = alternate(peers, rounds=ROUNDS, pause_seconds=SPARE_SECONDS, within_seconds=WITHIN_SECONDS)
    whole = timings["everything"]
    print(f"everything: {whole}")
    rows = []
    for name, timing in timings.items():
        difference, ratio = timing.median - whole.median, whole.median / timing.median
        rows.append((name, f"{ratio:.2f}", f"{difference:+.2f} ms", f"{timing.median:.2f} ms"))
        if name != "everything":
            print(f"ratio to {name}: {ratio:.2f}   ({difference:+.2f} ms; {timing})")
    return BenchResult(
        name="layers",
        title="Layers of the sandbox",
        about="A launch of `/bin/true` with everything on, beside the same with one layer less, or one thing more.",
        summary=(f"everything: {whole}",),
        tables=(
            Table(
                "A launch, layer by layer",
                ("", "everything's time in terms of it", "difference", "median"),
                tuple(rows),
            ),
        ),
    )
