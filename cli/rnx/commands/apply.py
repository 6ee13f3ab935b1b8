"""``rnx apply``: manifests become the desired state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from rnx import exit_codes
from rnx.options import FilesOption, RecursiveOption
from rnx.target import Target, connected

if TYPE_CHECKING:
    from joblet.api.v1 import job_pb2
    from rnx.daemon import Daemon
    from rnx.manifest_files import ManifestFile


@connected
def apply(
    target: Target,
    filename: FilesOption,
    recursive: RecursiveOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would happen; change nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until the runs have ended.")] = False,
) -> int:
    """Make manifests the desired state.

    All files are checked first; if one is wrong, none is applied. Each manifest is reported as created, configured or
    unchanged, with what that means for what runs. With --wait the exit code is that of the first job that failed; jobs
    with `restart: Always` count as soon as they run.

    \b
    Example:
      rnx apply -f job.yml
      rnx apply -f jobs/ -R --dry-run
    """
    from rnx.manifest_files import read_files

    files = read_files(filename, recursive=recursive)
    daemon = target.daemon()
    if dry_run or len(files) > 1:
        # With several files the daemon looks at all of them before it takes the first.
        expected = [result for file in files for result in send(daemon, file, dry_run=True)]
        if dry_run:
            show(expected, dry_run=True)
            return exit_codes.OK
    results = []
    for file in files:
        answer = send(daemon, file, dry_run=False)
        show(answer, dry_run=False)
        results += answer
    return wait_for_all(daemon, files, results) if wait else exit_codes.OK


def send(daemon: Daemon, file: ManifestFile, *, dry_run: bool) -> list[job_pb2.ApplyResult]:
    return daemon.apply(file.data, filename=file.name, dry_run=dry_run)


def show(results: Sequence[job_pb2.ApplyResult], *, dry_run: bool) -> None:
    """``job/hello created (starts a run)``, one line a manifest."""
    for result in results:
        consequence = f" ({result.consequence})" if result.consequence and result.action != "unchanged" else ""
        print(
            f"{result.kind.lower() or 'job'}/{result.name} {result.action}{consequence}{' (dry run)' if dry_run else ''}",
            flush=True,
        )


def wait_for_all(daemon: Daemon, files: Sequence[ManifestFile], results: Sequence[job_pb2.ApplyResult]) -> int:
    """Wait for each job's run. Returns the exit code of the first that failed."""
    from joblet.manifest import Restart, jobs_of
    from rnx.output.terminal import progress
    from rnx.watching import exit_code_of, is_final, wait_for_run

    manifests = [one for file in files for one in jobs_of(file.manifests)]
    services = {one.metadata.name for one in manifests if one.spec.restart is Restart.ALWAYS}
    idle = {one.metadata.name for one in manifests if one.spec.suspend}
    code = exit_codes.OK
    with progress("waiting") as tell:
        for result in results:
            if result.name in idle or result.kind not in ("", "Job"):
                continue
            service = result.name in services
            run = wait_for_run(
                daemon,
                result.run_id or result.name,
                (lambda one: is_final(one) or one.phase == "RUNNING") if service else is_final,
                tell=tell,
            )
            print(f"job/{result.name} {run.phase}{f' ({run.reason})' if run.reason else ''}", flush=True)
            if is_final(run):
                code = code or exit_code_of(run)
    return code
