"""``rnx status``: how a run stands or ended."""

from __future__ import annotations

from typing import Annotated

import typer

from rnx import exit_codes
from rnx.options import Format, FormatOption, IndexOption, JsonOption, RefArgument, chosen
from rnx.target import Target, connected_to_many


@connected_to_many
def status(
    target: Target,
    ref: RefArgument,
    output: FormatOption = Format.TABLE,
    json: JsonOption = False,
    index: IndexOption = None,
    indexes: Annotated[bool, typer.Option("--indexes", help="Of an array: every index with its outcome.")] = False,
    state: Annotated[
        str, typer.Option(metavar="STATES", help="With --indexes: only those that are FAILED,RUNNING ...")
    ] = "",
) -> int:
    """Show how a job's run stands or ended, or a workflow's with its steps.

    Limits are shown as asked and as read back from the kernel. Of an array all indexes are shown, of a large one those that run
    or did not succeed; NAME.7 and --index 7 mean one of them. With --all-nodes or several nodes: a line for each that has it.

    \b
    Example:
      rnx status hello
      rnx status k3x9q2ab --json
      rnx status sweep --indexes --state FAILED
      rnx status workflow/nightly
    """
    from rnx.failures import InvalidRequest
    from rnx.indexes import index_lines, ref_of
    from rnx.kinds import split_ref
    from rnx.output.arrays import index_data, index_rows
    from rnx.output.documents import print_json, print_yaml, run_data, time_of
    from rnx.output.status import phase_of, status_lines

    kind, ref = split_ref(ref)
    if kind == "Workflow":
        if indexes or state or index is not None:
            raise InvalidRequest("a workflow has no indexes", todo="name the job of the step that has an array")
        return workflow_status(target, ref, chosen(output, json))
    ref = ref_of(ref, index)
    if target.is_many:
        from rnx.merged import status_from

        return status_from(target.several(), ref, chosen(output, json))
    form = chosen(output, json)
    daemon = target.daemon()
    if indexes or state:
        found = list(daemon.indexes(ref, states=[name.strip().upper() for name in state.split(",") if name.strip()]))
        match form:
            case Format.JSON:
                print_json([index_data(one) for one in found])
            case Format.YAML:
                print_yaml([index_data(one) for one in found])
            case Format.NAME:
                print("\n".join(str(one.index) for one in found))
            case _:
                print("\n".join(index_rows(found)))
        return exit_codes.OK
    job = daemon.get(ref)
    run = job.runs[0] if job.runs else None
    if form is Format.NAME:
        print(run.id if run else job.name)
    elif form in (Format.JSON, Format.YAML):
        data = {"job": job.name, "status": phase_of(job) or None} if run is None else run_data(run)
        data["nextTick"] = time_of(job, "next_tick")
        (print_json if form is Format.JSON else print_yaml)(data)
    else:
        print("\n".join(status_lines(job, run)))
        if run is not None and run.HasField("array"):
            print("\n".join(index_lines(daemon, run)))
    return exit_codes.OK


def workflow_status(target: Target, name: str, form: Format) -> int:
    from rnx.output.documents import print_json, print_yaml
    from rnx.output.workflow_status import workflow_data, workflow_lines

    if target.is_many:
        from rnx.merged import workflow_status_from

        return workflow_status_from(target.several(), name, form)
    workflow = target.daemon().resource("Workflow", name)
    if form is Format.NAME:
        print(f"workflow/{workflow.name}")
    elif form in (Format.JSON, Format.YAML):
        (print_json if form is Format.JSON else print_yaml)(workflow_data(workflow))
    else:
        print("\n".join(workflow_lines(workflow)))
    return exit_codes.OK
