"""``rnx run``: a command becomes a job. The manifest is composed from the flags; from there it is an apply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rnx.options import ExecutorOption, JsonOption
from rnx.target import Target, complete_job, complete_workflow, connected

if TYPE_CHECKING:
    from joblet.api.v1 import job_pb2
    from rnx.composition import RunFlags
    from rnx.daemon import Daemon


@connected
def run(
    target: Target,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="CMD", help="The command. All after it is its own.")
    ] = None,
    max_cpu: Annotated[int, typer.Option(min=0, metavar="PERCENT", help="CPU time; 100 is one core, 0 no limit.")] = 0,
    max_memory: Annotated[int, typer.Option(min=0, metavar="MB", help="Memory in MiB; 0 is no limit.")] = 0,
    max_iobps: Annotated[
        int, typer.Option(min=0, metavar="BYTES", help="Bytes read and written a second; 0 is no limit.")
    ] = 0,
    cpu_cores: Annotated[str | None, typer.Option(metavar="LIST", help="The cores it may use: 0-3 or 0,2.")] = None,
    network: Annotated[
        str, typer.Option(metavar="none|bridge|isolated|host|NAME", help="The network it sees.")
    ] = "none",
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", metavar="NAME=VALUE", help="A variable of its environment.")
    ] = None,
    workdir: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where the command starts: /work if not set.")
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The job's name; otherwise one is made up.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A label of the job.")] = None,
    upload: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="A file to put into the job's workspace, under its own name."),
    ] = None,
    upload_dir: Annotated[
        list[str] | None,
        typer.Option(metavar="DIR", help="A directory; what is in it is put there, with modes and links."),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[/KEY][:VARIABLE]",
            help="A secret it gets: in a variable, else as files below /run/secrets/NAME.",
        ),
    ] = None,
    timeout: Annotated[str | None, typer.Option(metavar="TIME", help="The longest it may take: 90s, 5m, 1h.")] = None,
    priority: Annotated[
        int | None, typer.Option(min=0, max=100, metavar="0..100", help="Higher goes first where places are scarce.")
    ] = None,
    volume: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[:PATH[:ro]]", help="A volume it uses; at /volumes/NAME unless a path is given."),
    ] = None,
    executor: ExecutorOption = None,
    schedule: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Not now but then: 90m from now, or at 2027-01-31T02:00:00Z."),
    ] = None,
    job: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Run an existing job once more, as it is.", autocompletion=complete_job),
    ] = None,
    workflow: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Run an existing workflow once more, as its overlap lets it.",
            autocompletion=complete_workflow,
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="With --job: beside a run that goes on. With --workflow: in place of one."),
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Print its output and exit with its exit code.")] = False,
    json: JsonOption = False,
) -> int | None:
    """Run a command as a job.

    Answers at once with lines ID, Command, Status and StartTime; the job goes on. With --wait the job's output is ours
    instead, and so is its exit code: 128+n for signal n, 137 if it ran out of memory, 124 if it ran out of time, 125 if its
    end is not known. Of a workflow it is the output of its steps, each line with its step, and 0 or 1, or 125 if another
    run took its place.

    \b
    Example:
      rnx run --max-cpu 50 --max-memory 128 python3 -c 'print("hi")'
      rnx run --wait --upload report.py python3 report.py
      rnx run --volume data:/data sh -c 'date >>/data/log'
      rnx run --secret db-password:PGPASSWORD psql -c 'select 1'
      rnx run --schedule 2027-01-31T02:00:00+01:00 ./report.sh
      rnx run --executor slurm --max-memory 4096 ./simulate
      rnx run --job nightly-report
      rnx run --workflow nightly --wait
    """
    from rnx.composition import RunFlags

    flags = RunFlags(
        command=command or (),
        name=name,
        max_cpu=max_cpu,
        max_memory=max_memory,
        max_iobps=max_iobps,
        cpu_cores=cpu_cores,
        network=network,
        env=env or (),
        labels=label or (),
        workdir=workdir,
        uploads=upload or (),
        upload_directories=upload_dir or (),
        timeout=timeout,
        priority=priority,
        volumes=volume or (),
        secrets=secret or (),
        schedule=schedule,
        executor=executor,
    )
    if workflow is not None:
        check_workflow(flags, job, workflow, json=json)
        return run_workflow(target.daemon(), workflow.removeprefix("workflow/"), force=force, wait=wait)
    check(flags, job, force=force, wait=wait)
    daemon = target.daemon()
    if job is not None:
        run_id = daemon.trigger(job, force=force)
    else:
        accepted = start(daemon, flags)
        run_id = accepted.run_id
        if schedule is not None:
            answer_later(daemon, accepted.name, json=json)
            return None
    if wait:
        return follow(daemon, run_id)
    answer(daemon, run_id, json=json)
    return None


def check(flags: RunFlags, job: str | None, *, force: bool, wait: bool) -> None:
    from rnx.composition import RunFlags
    from rnx.failures import InvalidRequest

    if job is not None and flags != RunFlags(command=()):
        raise InvalidRequest(
            "--job runs an existing job as it is and takes no command and no other flags",
            todo=f"rnx run --job {job}; rnx apply changes a job",
        )
    if force and job is None:
        raise InvalidRequest("--force goes with --job and --workflow", todo="rnx run --job NAME --force")
    if wait and flags.schedule is not None:
        raise InvalidRequest("--wait does not go with --schedule", todo="rnx wait NAME waits for the job's run")
    if job is None and not flags.command:
        raise InvalidRequest("there is no command", todo="rnx run [FLAGS] CMD [ARGUMENT]...; rnx run --help shows more")


def check_workflow(flags: RunFlags, job: str | None, workflow: str, *, json: bool) -> None:
    from rnx.composition import RunFlags
    from rnx.failures import InvalidRequest

    if job is not None or json or flags != RunFlags(command=()):
        raise InvalidRequest(
            "--workflow runs an existing workflow as it is and takes no other flags but --force and --wait",
            todo=f"rnx run --workflow {workflow}; rnx log -f workflow/{workflow} follows it, rnx wait workflow/{workflow} waits",
        )


def run_workflow(daemon: Daemon, name: str, *, force: bool, wait: bool) -> int | None:
    from rnx.commands.retry import told
    from rnx.failures import Conflict

    answer = daemon.retry_workflow(name, whole=True, force=force)
    if not wait:
        print(told(name, answer))
        return None
    if answer.place:  # others may come before it: its number is not known yet
        raise Conflict(
            f"not waited for: {told(name, answer)}", todo=f"rnx log -f workflow/{name} follows run {answer.run}"
        )
    return follow_workflow(daemon, name, answer.run)


def follow_workflow(daemon: Daemon, name: str, number: int) -> int:
    """Print what the steps of this run write until it is over. Returns the exit code to pass on."""
    import sys

    from joblet.api.v1 import job_pb2
    from rnx import exit_codes, workflow_runs
    from rnx.labelled_log import LabelledLog
    from rnx.output.terminal import printable
    from rnx.whole_log import told

    labelled = LabelledLog(daemon, job_pb2.LogsRequest(ref=name, follow=True), timestamps=False)
    try:
        labelled.workflow(name, number)
        workflow = workflow_runs.wait_for_workflow(
            daemon, name, lambda one: one.workflow_run.number != number or workflow_runs.is_over(one)
        )
    except KeyboardInterrupt:
        print(
            f"\nrnx: the workflow goes on\n  rnx log -f workflow/{name} follows it, rnx stop workflow/{name} stops it",
            file=sys.stderr,
        )
        return exit_codes.INTERRUPTED
    missing = told(labelled.failures)
    if workflow.workflow_run.number != number:
        taken = f"rnx: run {workflow.workflow_run.number} of workflow/{name} took the place of run {number}"
        print(f"{taken}\n  rnx events workflow/{name} tells how that ended", file=sys.stderr)
        return exit_codes.UNKNOWN_END
    if not workflow_runs.has_succeeded(workflow):
        print(printable(f"rnx: {workflow_runs.told(workflow)}"), file=sys.stderr)
    return workflow_runs.exit_code_of(workflow) or missing


def start(daemon: Daemon, flags: RunFlags) -> job_pb2.ApplyResult:
    """Apply the composed manifest."""
    from rnx.composition import FILENAME, compose, name_flags
    from rnx.failures import Conflict, InvalidRequest, NotFound
    from rnx.uploads import send

    manifest, contents = compose(flags)
    if flags.name is not None:
        try:
            if daemon.get(flags.name).name == flags.name:
                raise Conflict(
                    f"there is a job {flags.name} already",
                    todo=f"rnx run --job {flags.name} runs it again, rnx delete {flags.name} removes it",
                )
        except NotFound:
            pass  # as it should be; a name that is wrong in itself is told by the apply
    send(daemon, contents)
    try:
        return daemon.apply(manifest, filename=FILENAME)[0]
    except InvalidRequest as error:
        raise InvalidRequest(name_flags(error.what), todo="rnx run --help tells about the flags") from error


def answer(daemon: Daemon, run_id: str, *, json: bool) -> None:
    """The lines that scripts have read since Go Joblet."""
    from rnx.output.documents import print_json, run_data
    from rnx.output.status import accepted_lines

    run = daemon.get(run_id).runs[0]
    if json:
        print_json(run_data(run))
    else:
        print("\n".join(accepted_lines(run)))


def answer_later(daemon: Daemon, name: str, *, json: bool) -> None:
    """The same lines for a job that has no run yet: its name stands where the run's id would."""
    from rnx.output.documents import listed_data, print_json
    from rnx.output.status import awaited_lines

    job = daemon.get(name)
    if json:
        print_json({**listed_data(job), "id": job.name})
    else:
        print("\n".join(awaited_lines(job)))


def follow(daemon: Daemon, run_id: str) -> int:
    """Print the output until the run is over. Returns the exit code to pass on."""
    import sys

    from joblet.api.v1 import job_pb2
    from rnx import exit_codes
    from rnx.log_output import LogPrinter, print_log
    from rnx.output.terminal import printable
    from rnx.watching import exit_code_of, is_final, wait_for_run

    try:
        print_log(daemon, job_pb2.LogsRequest(ref=run_id, follow=True), LogPrinter())
        run = wait_for_run(daemon, run_id, is_final)
    except KeyboardInterrupt:
        print(f"\nrnx: the job goes on\n  rnx log -f {run_id} follows it, rnx stop {run_id} stops it", file=sys.stderr)
        return exit_codes.INTERRUPTED
    if run.phase != "COMPLETED" and run.reason != "ExitCode":
        detail = f": {run.message}" if run.message else ""
        print(printable(f"rnx: {run.job} {run.phase} ({run.reason}){detail}"), file=sys.stderr)
    return exit_code_of(run)
