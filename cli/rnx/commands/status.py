"""``rnx status``: how a run stands or ended."""

from __future__ import annotations

from rnx import exit_codes
from rnx.options import Format, FormatOption, JsonOption, RefArgument, chosen
from rnx.target import Target, connected_to_many


@connected_to_many
def status(target: Target, ref: RefArgument, output: FormatOption = Format.TABLE, json: JsonOption = False) -> int:
    """Show how a job's run stands or ended.

    Limits are shown as asked and as read back from the kernel. With --all-nodes or several nodes: a line for each that has it.

    \b
    Example:
      rnx status hello
      rnx status k3x9q2ab --json
    """
    from rnx.output.documents import print_json, print_yaml, run_data, time_of
    from rnx.output.status import phase_of, status_lines

    if target.is_many:
        from rnx.merged import status_from

        return status_from(target.several(), ref, chosen(output, json))
    job = target.daemon().get(ref)
    run = job.runs[0] if job.runs else None
    form = chosen(output, json)
    if form is Format.NAME:
        print(run.id if run else job.name)
    elif form in (Format.JSON, Format.YAML):
        data = {"job": job.name, "status": phase_of(job) or None} if run is None else run_data(run)
        data["nextTick"] = time_of(job, "next_tick")
        (print_json if form is Format.JSON else print_yaml)(data)
    else:
        print("\n".join(status_lines(job, run)))
    return exit_codes.OK
