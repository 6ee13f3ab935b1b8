"""``rnx apply``: manifests become the desired state."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from rnx import exit_codes
from rnx.options import FilesOption, Format, FormatOption, RecursiveOption
from rnx.target import Target, connected_to_many

if TYPE_CHECKING:
    from joblet.api.v1 import job_pb2
    from rnx.daemon import Daemon
    from rnx.manifest_files import ManifestFile
    from rnx.uploads import LocalContent

DOCUMENTS = (Format.JSON, Format.YAML)


@connected_to_many
def apply(
    target: Target,
    filename: FilesOption,
    recursive: RecursiveOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would happen; change nothing.")] = False,
    output: FormatOption = Format.TABLE,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until the runs have ended.")] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Take what belongs to another source; nothing restarts because of it.")
    ] = False,
) -> int:
    """Make manifests the desired state.

    All files are checked first; if one is wrong, none is applied. Each manifest is reported as created, configured or
    unchanged, with what that means for what runs. With --wait the exit code is that of the first job that failed, 1 for a
    workflow; jobs with `restart: Always` count as soon as they run.

    Files that spec.files names with `from` lie beside the manifest, or below; those that the daemon does not have are uploaded.

    With --all-nodes or several nodes each applies all of it or nothing; what one refuses keeps no other from it.

    \b
    Example:
      rnx apply -f job.yml
      rnx apply -f jobs/ -R --dry-run
      rnx apply -f job.yml -o json
      rnx apply -f job.yml --take-over
      rnx apply -f jobs/ --node web1,web2
    """
    from rnx.manifest_files import read_files
    from rnx.uploads import of_manifests
    from rnx.uploads import send as upload

    files = read_files(filename, recursive=recursive)
    local = {file.name: of_manifests(file) for file in files}
    if target.is_many:
        from rnx.merged import apply_to

        order = Order(files, local, dry_run=dry_run, take_over=take_over, wait=wait)
        return apply_to(target.several(), order, output)
    daemon = target.daemon()
    if dry_run or len(files) > 1:
        # With several files the daemon looks at all of them before it takes the first.
        expected = [
            result
            for file in files
            for result in send(daemon, file, local[file.name], dry_run=True, take_over=take_over)
        ]
        if dry_run:
            show(expected, output, dry_run=True)
            return exit_codes.OK
    upload(daemon, [content for found in local.values() for content in found.values()])
    results = []
    for file in files:
        answer = send(daemon, file, local[file.name], dry_run=False, take_over=take_over)
        if output not in DOCUMENTS:
            show(answer, output, dry_run=False)
        results += answer
    if output in DOCUMENTS:
        show(results, output, dry_run=False)
    return wait_for_all(daemon, files, results, output) if wait else exit_codes.OK


@dataclass(frozen=True, slots=True)
class Order:
    """What several nodes are to apply. local: of each file what its ``from`` stand for."""

    files: Sequence[ManifestFile]
    local: Mapping[str, Mapping[str, LocalContent]]
    dry_run: bool
    take_over: bool
    wait: bool


def send(
    daemon: Daemon, file: ManifestFile, local: Mapping[str, LocalContent], *, dry_run: bool, take_over: bool = False
) -> list[job_pb2.ApplyResult]:
    """local: what each ``from`` in it stands for."""
    from rnx.uploads import local_files

    return daemon.apply(file.data, filename=file.name, dry_run=dry_run, take_over=take_over, files=local_files(local))


def carry_out(daemon: Daemon, order: Order) -> list[job_pb2.ApplyResult]:
    """All of it on one node, or nothing, without a word. Raises ClientError."""
    from rnx.uploads import send as upload

    def sent(*, dry_run: bool) -> list[job_pb2.ApplyResult]:
        return [
            result
            for file in order.files
            for result in send(daemon, file, order.local[file.name], dry_run=dry_run, take_over=order.take_over)
        ]

    if order.dry_run or len(order.files) > 1:
        expected = sent(dry_run=True)
        if order.dry_run:
            return expected
    upload(daemon, [content for found in order.local.values() for content in found.values()], quiet=True)
    return sent(dry_run=False)


def show(results: Sequence[job_pb2.ApplyResult], form: Format, *, dry_run: bool) -> None:
    """``job/hello created (starts a run)``, one line a manifest; or one document with all."""
    from rnx.output.documents import print_json, print_yaml

    if form in DOCUMENTS:
        data = [result_data(result, dry_run=dry_run) for result in results]
        print_json(data) if form is Format.JSON else print_yaml(data)
        sys.stdout.flush()
        return
    for result in results:
        what = f"{result.kind.lower() or 'job'}/{result.name}"
        if form is Format.NAME:
            print(what, flush=True)
            continue
        consequence = f" ({result.consequence})" if result.consequence and result.action != "unchanged" else ""
        print(f"{what} {result.action}{consequence}{' (dry run)' if dry_run else ''}", flush=True)


def result_data(result: job_pb2.ApplyResult, *, dry_run: bool) -> dict[str, object]:
    """The keys are a contract with scripts."""
    return {
        "kind": result.kind or "Job",
        "name": result.name,
        "action": result.action,
        "consequence": result.consequence,
        "generation": result.generation,
        "run": result.run_id or None,
        "dryRun": dry_run,
    }


def wait_for_all(
    daemon: Daemon, files: Sequence[ManifestFile], results: Sequence[job_pb2.ApplyResult], output: Format
) -> int:
    """Wait for each job's run. Returns the exit code of the first that failed."""
    from rnx.output.terminal import printable, progress

    code = exit_codes.OK
    with progress("waiting") as tell:
        for one in awaited(daemon, files, results, tell):
            # Where the output is a document, this is for people who wait.
            print(printable(one.text), file=sys.stderr if output in DOCUMENTS else sys.stdout, flush=True)
            code = code or one.code
    return code


@dataclass(frozen=True, slots=True)
class Awaited:
    """How something ended that was waited for, as a line and as an exit code."""

    text: str
    code: int


def awaited(
    daemon: Daemon,
    files: Sequence[ManifestFile],
    results: Sequence[job_pb2.ApplyResult],
    tell: Callable[[str], None] | None = None,
) -> Iterator[Awaited]:
    """Each job's run and each workflow's, once it has ended; a service's, once it runs."""
    from joblet.manifest import JobManifest, Restart, WorkflowManifest, jobs_of, key_of
    from rnx import workflow_runs
    from rnx.watching import exit_code_of, is_final, wait_for_run

    jobs = [one for file in files for one in jobs_of(file.manifests)]
    workflows = [one for file in files for one in file.manifests if isinstance(one, WorkflowManifest)]
    services = {one.metadata.name for one in jobs if one.spec.restart is Restart.ALWAYS}
    # Who has a schedule may have its next run in a year.
    both: list[JobManifest | WorkflowManifest] = [*jobs, *workflows]
    running = {key_of(one) for one in both if not one.spec.suspend and one.spec.schedule is None}
    for result in results:
        key = result.name if result.kind in ("", "Job") else f"{result.kind.lower()}/{result.name}"
        if key not in running:
            continue
        if result.kind == "Workflow":
            workflow = workflow_runs.wait_for_workflow(daemon, result.name, workflow_runs.is_over, tell=tell)
            yield Awaited(workflow_runs.told(workflow), workflow_runs.exit_code_of(workflow))
            continue
        service = result.name in services
        run = wait_for_run(
            daemon,
            result.run_id or result.name,
            (lambda one: is_final(one) or one.phase == "RUNNING") if service else is_final,
            tell=tell,
        )
        text = f"job/{result.name} {run.phase}{f' ({run.reason})' if run.reason else ''}"
        yield Awaited(text, exit_code_of(run) if is_final(run) else exit_codes.OK)
