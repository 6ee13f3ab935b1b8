"""What commands show of several nodes: one table, one list, or lines that begin with their node."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from joblet.api.v1 import job_pb2
from rnx import exit_codes
from rnx.commands.apply import DOCUMENTS, Awaited, Order, awaited, carry_out, result_data
from rnx.failures import NotFound
from rnx.options import Format
from rnx.output.documents import event_data, job_data, listed_data, print_json, print_yaml, run_data
from rnx.output.table import print_table
from rnx.output.terminal import printable
from rnx.several import STREAMS_AT_ONCE, Several, merged, with_node
from rnx.watching import wait_for_run

if TYPE_CHECKING:
    from joblet.api.v1 import resource_pb2
    from rnx.commands.wait import Goal
    from rnx.daemon import Daemon


def get_from(nodes: Several, kind: str, names: Sequence[str], selector: str, form: Format, *, manifests: bool) -> int:
    """``rnx get``. names: what a node does not have is no failure if another one has it."""
    from rnx.commands import get

    if kind != "Job":
        return _resources_from(nodes, kind, names, form, manifests=manifests)
    found = nodes.ask(
        lambda _, daemon: _some(names, daemon.get) if names else list(daemon.list_jobs(selector=selector))
    )
    if names and not any(found.values()):
        return _none_found(nodes, names)
    _check_names(nodes, names, {job.name for jobs in found.values() for job in jobs})
    if manifests:
        _print_manifests([job.manifest for jobs in found.values() for job in jobs])
    elif form in DOCUMENTS:
        _print(merged(found, job_data), form)
    elif form is Format.NAME:
        print("".join(f"{name}/job/{job.name}\n" for name, jobs in found.items() for job in jobs), end="")
    elif form is Format.WIDE:
        print_table(("NODE", *get.WIDE), with_node(found, lambda job: [*get.row(job), *get.wide(job)]))
    else:
        print_table(("NODE", *get.HEADER), with_node(found, lambda job: [*get.row(job), job.source]))
    return nodes.tell()


def _resources_from(nodes: Several, kind: str, names: Sequence[str], form: Format, *, manifests: bool) -> int:
    from rnx.resources import resource_data, table

    def ask(_: str, daemon: Daemon) -> list[resource_pb2.Resource]:
        return _some(names, lambda name: daemon.resource(kind, name)) if names else daemon.list_resources(kind)

    found = nodes.ask(ask)
    everything = [resource for resources in found.values() for resource in resources]
    if names and not everything:
        return _none_found(nodes, names)
    _check_names(nodes, names, {resource.name for resource in everything})
    if manifests:
        _print_manifests([resource.manifest for resource in everything])
    elif form in DOCUMENTS:
        _print(merged(found, resource_data), form)
    elif form is Format.NAME:
        lines = (f"{node}/{kind.lower()}/{one.name}\n" for node, resources in found.items() for one in resources)
        print("".join(lines), end="")
    else:
        owners = [node for node, resources in found.items() for _ in resources]
        header, rows = table(everything, form)
        print_table(("NODE", *header), [[node, *row] for node, row in zip(owners, rows, strict=True)])
    return nodes.tell()


def list_from(nodes: Several, selector: str, phases: Sequence[str], form: Format) -> int:
    """``rnx list``."""
    found = nodes.ask(lambda _, daemon: list(daemon.list_jobs(selector=selector, phases=phases)))
    _show_listed(found, form)
    return nodes.tell()


def status_from(nodes: Several, ref: str, form: Format) -> int:
    """``rnx status``: of each node that has that job."""
    found = nodes.ask(lambda _, daemon: [daemon.get(ref)])
    nodes.somewhere_is_enough(found)
    if form in DOCUMENTS:
        _print(
            merged(found, lambda job: run_data(job.runs[0]) if job.runs else {"job": job.name, "status": None}), form
        )
    elif found:
        _show_listed(found, form)
    return nodes.tell()


def workflow_status_from(nodes: Several, name: str, form: Format) -> int:
    """``rnx status`` of a workflow: of each node that has it."""
    from rnx.output.workflow_status import workflow_data
    from rnx.resources import table

    found = nodes.ask(lambda _, daemon: [daemon.resource("Workflow", name)])
    nodes.somewhere_is_enough(found)
    if form in DOCUMENTS:
        _print(merged(found, workflow_data), form)
    elif form is Format.NAME:
        print("".join(f"{node}/workflow/{name}\n" for node in found), end="")
    elif found:
        header, rows = table([workflow for (workflow,) in found.values()], form)
        print_table(("NODE", *header), [[node, *row] for node, row in zip(found, rows, strict=True)])
    return nodes.tell()


def _show_listed(found: Mapping[str, list[job_pb2.Job]], form: Format) -> None:
    from rnx.commands import listing

    if form in DOCUMENTS:
        _print(merged(found, listed_data), form)
    elif form is Format.NAME:
        print("".join(f"{name}/job/{job.name}\n" for name, jobs in found.items() for job in jobs), end="")
    elif form is Format.WIDE:
        print_table(("NODE", *listing.WIDE), with_node(found, lambda job: listing.row(job, wide=True)))
    else:
        print_table(("NODE", *listing.HEADER), with_node(found, lambda job: listing.row(job, wide=False)))


def events_from(nodes: Several, request: job_pb2.EventsRequest, form: Format) -> int:
    """``rnx events``: in the order of their time; with ``follow`` as they come."""
    import json

    from rnx.commands import events

    lock = threading.Lock()

    def follow(name: str, daemon: Daemon) -> None:
        for event in daemon.events(request):
            data = json.dumps({"node": name, **event_data(event)})
            with lock:
                print(printable(data if form is Format.JSON else "  ".join([name, *events.row(event)])), flush=True)

    if request.follow:
        nodes.somewhere_is_enough(nodes.ask(follow, at_once=STREAMS_AT_ONCE))
        return nodes.tell()
    found = nodes.ask(lambda _, daemon: list(daemon.events(request)))
    nodes.somewhere_is_enough(found)
    pairs = [(name, event) for name, several in found.items() for event in several]
    pairs.sort(key=lambda pair: pair[1].last.ToNanoseconds())
    if form in DOCUMENTS:
        _print([{"node": name, **event_data(event)} for name, event in pairs], form)
    else:
        print_table(("NODE", *events.HEADER), [[name, *events.row(event)] for name, event in pairs])
    return nodes.tell()


def log_from(nodes: Several, kind: str, request: job_pb2.LogsRequest, *, timestamps: bool) -> int:
    """``rnx log``: of each node that has that job or workflow."""
    from rnx.whole_log import Beside, print_whole

    lock = threading.Lock()

    def follow(name: str, daemon: Daemon) -> int:
        mine = job_pb2.LogsRequest()
        mine.CopyFrom(request)
        return print_whole(daemon, kind, mine, timestamps=timestamps, beside=Beside(f"{name}  ", lock))

    found = nodes.ask(follow, at_once=STREAMS_AT_ONCE)
    nodes.somewhere_is_enough(found)
    return nodes.tell(*found.values())


def wait_from(nodes: Several, what: tuple[str, str], goal: Goal, seconds: float | None) -> int:
    """``rnx wait``: on each node that has it. what: its kind and name."""
    from rnx import workflow_runs
    from rnx.commands.wait import told

    kind, ref = what

    def wait(name: str, daemon: Daemon) -> bool:
        if kind == "Workflow":
            workflow = workflow_runs.wait_for_workflow(daemon, ref, goal.is_over_for, seconds=seconds)
            text, reached = workflow_runs.told(workflow), goal.is_reached_by(workflow)
        else:
            run = wait_for_run(daemon, ref, goal.is_over, seconds=seconds)
            text, reached = told(run), goal.is_reached(run)
        print(printable(f"{name}  {text}") + "\n", end="", flush=True)
        return reached

    found = nodes.ask(wait, at_once=STREAMS_AT_ONCE)
    nodes.somewhere_is_enough(found)
    return nodes.tell(*(exit_codes.OK if reached else exit_codes.FAILURE for reached in found.values()))


def sync_on(nodes: Several, name: str, *, allow_delete: bool, take_over: bool) -> int:
    """``rnx sync``: on each node that follows it."""
    found = nodes.ask(lambda _, daemon: daemon.sync_source(name, allow_delete=allow_delete, take_over=take_over))
    nodes.somewhere_is_enough(found)
    rows = [
        [node, f"gitsource/{name}", answer.revision, str(answer.manifests), answer.reason or "in line", answer.message]
        for node, answer in found.items()
    ]
    if rows:
        print_table(("NODE", "NAME", "REVISION", "MANIFESTS", "STATE", "MESSAGE"), rows)
    return nodes.tell(*(exit_codes.OK if answer.in_line else exit_codes.FAILURE for answer in found.values()))


def delete_from(nodes: Several, names: Sequence[str], *, ignore_not_found: bool) -> int:
    """``rnx delete``: on each node that has it."""
    from rnx.kinds import split_key

    code = exit_codes.OK
    for wanted in names:
        kind, short = split_key(wanted)

        def delete(name: str, daemon: Daemon, kind: str = kind, short: str = short) -> None:
            daemon.delete(short) if kind == "Job" else daemon.delete_resource(kind, short)
            print(f"{name}  {kind.lower()}/{short} deleted\n", end="", flush=True)

        found = nodes.ask(delete)
        nodes.somewhere_is_enough(found if not ignore_not_found else {"": None})
        code = code or nodes.tell()
        nodes.failures.clear()
    return code


def apply_to(nodes: Several, order: Order, form: Format) -> int:
    """``rnx apply``: all of it on each node, or nothing there."""

    def apply(_: str, daemon: Daemon) -> tuple[list[job_pb2.ApplyResult], list[Awaited]]:
        results = carry_out(daemon, order)
        return results, list(awaited(daemon, order.files, results)) if order.wait else []

    answers = nodes.ask(apply, at_once=STREAMS_AT_ONCE if order.wait else 16)
    found = {name: results for name, (results, _) in answers.items()}
    if form in DOCUMENTS:
        _print(merged(found, lambda result: result_data(result, dry_run=order.dry_run)), form)
    elif form is Format.NAME:
        lines = (f"{name}/{_key(result)}\n" for name, results in found.items() for result in results)
        print("".join(lines), end="")
    elif found:
        print_table(("NODE", "NAME", "ACTION", "CONSEQUENCE"), with_node(found, _applied(order)))
    codes = []
    for name, (_, ended) in answers.items():
        for one in ended:
            text = printable(f"{name}  {one.text}")
            print(text, file=sys.stderr if form in DOCUMENTS else sys.stdout, flush=True)
            codes.append(one.code)
    return nodes.tell(*codes)


def _applied(order: Order) -> Callable[[job_pb2.ApplyResult], list[str]]:
    dry = " (dry run)" if order.dry_run else ""
    return lambda one: [_key(one), f"{one.action}{dry}", one.consequence if one.action != "unchanged" else ""]


def _key(result: job_pb2.ApplyResult) -> str:
    return f"{result.kind.lower() or 'job'}/{result.name}"


def _some(names: Sequence[str], get: Callable[[str], Any]) -> list[Any]:
    """Those of these that a node has."""
    found = []
    for name in names:
        try:
            found.append(get(name))
        except NotFound:
            continue  # another one may have it: ``_check_names`` looks
    return found


def _check_names(nodes: Several, names: Sequence[str], found: set[str]) -> None:
    for name in names:
        if name not in found and not nodes.failures:
            nodes.failures["all nodes"] = NotFound(
                f"there is no {name!r}", todo="rnx get --all-nodes shows what there is"
            )


def _none_found(nodes: Several, names: Sequence[str]) -> int:
    _check_names(nodes, names, set())
    return nodes.tell()


def _print(data: list[dict[str, Any]], form: Format) -> None:
    print_json(data) if form is Format.JSON else print_yaml(data)
    sys.stdout.flush()


def _print_manifests(texts: Sequence[str]) -> None:
    print("---\n".join(dict.fromkeys(texts)), end="")
