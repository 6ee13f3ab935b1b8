"""What is declared and no job, in the form that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rnx.options import Format

if TYPE_CHECKING:
    from joblet.api.v1 import resource_pb2


def show_resources(
    resources: Sequence[resource_pb2.Resource], form: Format, *, alone: bool, manifests: bool = False
) -> None:
    """alone: one was asked for by name, so JSON is that one and no list. manifests: print those and nothing else."""
    from rnx.output.documents import print_json, print_yaml
    from rnx.output.table import print_table

    if manifests:
        print("---\n".join(resource.manifest for resource in resources), end="")
        return
    match form:
        case Format.JSON:
            data = [resource_data(resource) for resource in resources]
            print_json(data[0] if alone else data)
        case Format.YAML:
            print_yaml([resource_data(resource) for resource in resources])
        case Format.NAME:
            for resource in resources:
                print(f"{resource.kind.lower()}/{resource.name}")
        case _:
            print_table(*table(resources, form))


def table(resources: Sequence[resource_pb2.Resource], form: Format) -> tuple[tuple[str, ...], list[list[str]]]:
    """Header and rows. What is long stands last."""
    figures = sorted({name for resource in resources for name in resource.status})
    header: tuple[str, ...] = ("NAME", "READY", *(name.upper() for name in figures), "USED BY")
    header = (*header, "GENERATION", "SOURCE", "UPDATED") if form is Format.WIDE else header
    rows = [row(resource, figures, form is Format.WIDE) for resource in resources]
    messages = [message(resource) for resource in resources]
    if not any(messages):
        return header, rows
    return (*header, "MESSAGE"), [[*cells, text] for cells, text in zip(rows, messages, strict=True)]


def row(resource: resource_pb2.Resource, figures: Sequence[str], wide: bool) -> list[str]:
    from rnx.output.words import moment

    cells = [
        resource.name,
        "Deleting" if resource.deleting else ready(resource).partition(":")[0],
        *(resource.status.get(name, "") for name in figures),
        ",".join(resource.used_by),
    ]
    return [*cells, str(resource.generation), resource.source, moment(resource.updated)] if wide else cells


def message(resource: resource_pb2.Resource) -> str:
    """Why it is not ready, in full; empty if it is."""
    return next((one.message for one in resource.conditions if one.type == "Ready" and one.status != "True"), "")


def ready(resource: resource_pb2.Resource) -> str:
    """True, or why not."""
    condition = next((one for one in resource.conditions if one.type == "Ready"), None)
    if condition is None:
        return "Unknown"
    return "True" if condition.status == "True" else f"{condition.reason}: {condition.message}"


def resource_data(resource: resource_pb2.Resource) -> dict[str, Any]:
    """The manifest with a status beside it."""
    from rnx.output.documents import manifest_data, time_of

    return {
        **manifest_data(resource.manifest),
        "status": {
            "uid": resource.uid,
            "generation": resource.generation,
            "source": resource.source,
            "deleting": resource.deleting,
            "created": time_of(resource, "created"),
            "updated": time_of(resource, "updated"),
            "conditions": [
                {"type": one.type, "status": one.status, "reason": one.reason, "message": one.message}
                for one in resource.conditions
            ],
            **dict(sorted(resource.status.items())),
            "usedBy": list(resource.used_by),
            **({"stepsInOrder": [step_data(step) for step in resource.steps]} if resource.kind == "Workflow" else {}),
        },
    }


def step_data(step: resource_pb2.WorkflowStep) -> dict[str, Any]:
    from rnx.output.documents import time_of

    return {
        "name": step.name,
        "job": step.job,
        "status": step.phase,
        "reason": step.reason or None,
        "message": step.message or None,
        "run": step.run_id or None,
        "needs": list(step.needs),
        "started": time_of(step, "started"),
        "ended": time_of(step, "ended"),
        "outputs": dict(sorted(step.outputs.items())),
    }
