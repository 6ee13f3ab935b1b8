"""The suite in parts of about the same length, each in a guest of its own: a guest has one processor, a host has more."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.guest.boot import REPOSITORY

PARTS = 2
SYSTEMD = "tests/systemd"  # in a guest that systemd has booted: one for all of them, as the boot takes half a minute
# As a run prints them at its end, rounded; nothing but the balance depends on it.
SECONDS = {
    **{
        "test_attacks.py": 75,
        "test_volumes.py": 50,
        "test_crash_points.py": 45,
        "test_examples.py": 25,
        "test_stress.py": 45,
    },
    **{"test_daemon_death.py": 35, "test_local_executor.py": 35, "test_sandbox.py": 25, "test_probes.py": 22},
    **{
        "test_cgroup_limits.py": 22,
        "test_secrets.py": 20,
        "test_monitor.py": 20,
        "test_limits.py": 19,
        "test_shutdown.py": 10,
    },
    **{"test_layers.py": 17, "test_lifecycle.py": 17, "test_rootfs.py": 15, "test_cleanup.py": 15},
    **{"test_sandbox_ends.py": 12, "test_sandbox_surroundings.py": 11, "test_refusals.py": 10},
    **{"test_deployment.py": 200, "test_unit.py": 75, "test_doctor.py": 20, "test_rotation.py": 18},
}
OTHERS_SECONDS = 4
# Of client, certificates, repositories, files and the API above the executor: no hierarchy of cgroups and no kernel makes a
# difference to them. The native run has them; named one by one they run in the guest too. See docs/decisions/0052.
NATIVE_IS_ENOUGH = frozenset(
    {
        *(
            "test_arrays.py",
            "test_certificates.py",
            "test_configuration.py",
            "test_fail2ban.py",
            "test_gitops_example.py",
            "test_hooks.py",
        ),
        *("test_grpc_daemon.py", "test_grpc_services.py", "test_metrics.py", "test_policy.py", "test_report.py"),
        *("test_rnx.py", "test_schedules.py", "test_spool.py", "test_tls_front.py", "test_top.py", "test_trust.py"),
        *("test_tracing.py", "test_uploads.py", "test_workflows.py"),
        "test_upkeep.py",  # calls of the API by a socket, and what the daemon does then
    }
)
BOOT_SECONDS = 30


def whole_directories(arguments: Sequence[str]) -> bool:
    """Whether there is a directory of tests among them and nothing but paths: only then there is something to divide."""
    paths = [REPOSITORY / argument for argument in arguments]
    return any(path.is_dir() for path in paths) and all(path.exists() for path in paths)


def with_systemd(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """pytest's arguments for the guest with systemd, and for the one without; none at all where there are no tests for it."""
    paths = [argument for argument in arguments if (REPOSITORY / argument.partition("::")[0]).exists()]
    booted = [path for path in paths if (REPOSITORY / path).is_relative_to(REPOSITORY / SYSTEMD)]
    if not booted:
        return [], list(arguments)
    options = [argument for argument in arguments if argument not in paths]
    others = [path for path in paths if path not in booted]
    return [*options, *booted], [*options, *others] if others else []


def divided(places: Iterable[str]) -> list[list[str]]:
    """The test files that are named or lie below, in at most PARTS lists that take about the same time; those that need systemd
    are together in one. What lies below and is in NATIVE_IS_ENOUGH is left out."""
    paths = [REPOSITORY / place for place in places]
    files = [file for path in paths for file in (below(path) if path.is_dir() else [path])]
    booted = [path for path in files if path.is_relative_to(REPOSITORY / SYSTEMD)]
    pieces = [[path] for path in files if path not in booted] + ([booted] if booted else [])
    parts: list[list[str]] = [[] for _ in range(PARTS)]
    loads = [0] * PARTS
    for piece in sorted(pieces, key=seconds, reverse=True):
        lightest = loads.index(min(loads))
        parts[lightest] += [str(path.relative_to(REPOSITORY)) for path in piece]
        loads[lightest] += seconds(piece)
    return [sorted(part) for part in parts if part]


def below(directory: Path) -> list[Path]:
    return [file for file in sorted(directory.rglob("test_*.py")) if file.name not in NATIVE_IS_ENOUGH]


def seconds(piece: list[Path]) -> int:
    """About how long these files' tests take there."""
    boots = any(path.is_relative_to(REPOSITORY / SYSTEMD) for path in piece)
    return sum(SECONDS.get(path.name, OTHERS_SECONDS) for path in piece) + (BOOT_SECONDS if boots else 0)


def compile_all() -> None:
    """Compile all modules of a fresh clone here: each guest would do it by itself, and at a tenth of the speed."""
    sources = ("joblet", "reconciler", "cli", "tests")
    subprocess.run([sys.executable, "-m", "compileall", "-q", *sources], cwd=REPOSITORY, check=True)


def run_divided(directories: Sequence[str]) -> int:
    """Run all parts at the same time; the first one's output is shown as it comes, the others' when they are through.

    Returns 0 if all passed, else the first status that is not.
    """
    print(f"run natively alone: {' '.join(sorted(NATIVE_IS_ENOUGH))}", flush=True)
    compile_all()
    command = [sys.executable, "-m", "tests.guest"]
    with ExitStack() as stack:
        started = []
        try:
            for number, files in enumerate(divided(directories)):
                kept = stack.enter_context(tempfile.TemporaryFile()) if number else None
                process = subprocess.Popen([*command, *files], cwd=REPOSITORY, stdout=kept, stderr=kept)
                started.append((process, kept))
            statuses = []
            for process, kept in started:
                statuses.append(process.wait())
                if kept is not None:
                    kept.seek(0)
                    sys.stdout.flush()
                    sys.stdout.buffer.write(kept.read())
                    sys.stdout.flush()
        finally:
            for process, _ in started:
                if process.poll() is None:
                    process.terminate()  # it ends its guest first
                    process.wait()
    return next((status for status in statuses if status), 0)
