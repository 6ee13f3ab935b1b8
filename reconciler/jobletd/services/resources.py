"""ResourceService: what is declared and no job."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc

from joblet.api.v1 import resource_pb2, resource_pb2_grpc
from joblet.manifest import RESOURCE_KINDS, WorkflowManifest, key, to_yaml
from jobletd.desired import DesiredState
from jobletd.model import JobName, ShownResource, Source
from jobletd.services import convert
from jobletd.services.access import caller
from jobletd.services.jobs import note
from jobletd.services.requests import InvalidRequest
from jobletd.services.status_codes import answered
from jobletd.sources.git.controller import GitSources
from jobletd.sources.git.repository import SHORT
from jobletd.sources.git.source import Wishes
from jobletd.workflows.controller import SECOND_NS, Workflows
from jobletd.workflows.runs import plan_of
from jobletd.workflows.steps import WorkflowRun

Context = grpc.aio.ServicerContext[Any, Any]


class ResourceService(resource_pb2_grpc.ResourceServiceServicer):
    """See schemas/joblet/v1/resource.proto for what each method promises."""

    def __init__(self, desired: DesiredState, sources: GitSources, workflows: Workflows) -> None:
        self._desired = desired
        self._sources = sources
        self._workflows = workflows

    async def GetResource(self, request: resource_pb2.GetResourceRequest, context: Context) -> resource_pb2.Resource:
        async with answered(context):
            name = JobName(key(checked_kind(request.kind), request.name))
            return self._message(await self._desired.get_resource(name))
        raise AssertionError("unreachable")

    async def ListResources(
        self, request: resource_pb2.ListResourcesRequest, context: Context
    ) -> resource_pb2.ListResourcesResponse:
        async with answered(context):
            shown = await self._desired.list_resources(checked_kind(request.kind))
            return resource_pb2.ListResourcesResponse(resources=map(self._message, shown))
        raise AssertionError("unreachable")

    async def DeleteResource(
        self, request: resource_pb2.DeleteResourceRequest, context: Context
    ) -> resource_pb2.DeleteResourceResponse:
        async with answered(context):
            name = JobName(key(checked_kind(request.kind), request.name))
            await self._desired.delete(name, source=Source("grpc", caller.get().name))
            note("delete", resource=name)
            return resource_pb2.DeleteResourceResponse()
        raise AssertionError("unreachable")

    async def SyncSource(
        self, request: resource_pb2.SyncSourceRequest, context: Context
    ) -> resource_pb2.SyncSourceResponse:
        async with answered(context):
            wishes = Wishes(allow_delete=request.allow_delete, take_over=request.take_over)
            name = key("GitSource", request.name)
            note("sync", resource=name, allow_delete=wishes.allow_delete, take_over=wishes.take_over)
            source = await self._sources.sync(request.name, wishes)
            fault, applied = source.fault, source.applied
            return resource_pb2.SyncSourceResponse(
                in_line=fault is None,
                reason=fault.reason if fault else "",
                message=str(fault) if fault else "",
                revision=f"{applied.label}@{applied.revision[:SHORT]}" if applied else "",
                manifests=applied.manifests if applied else 0,
            )
        raise AssertionError("unreachable")

    async def RetryWorkflow(
        self, request: resource_pb2.RetryWorkflowRequest, context: Context
    ) -> resource_pb2.RetryWorkflowResponse:
        async with answered(context):
            note("retry", resource=key("Workflow", request.name), step=request.from_step, whole=request.whole)
            if request.whole:
                run, place = await self._workflows.trigger(request.name, force=request.force)
                return resource_pb2.RetryWorkflowResponse(run=run, place=place)
            again = await self._workflows.retry(request.name, step=request.from_step)
            return resource_pb2.RetryWorkflowResponse(run=again.number)
        raise AssertionError("unreachable")

    async def StopWorkflow(
        self, request: resource_pb2.StopWorkflowRequest, context: Context
    ) -> resource_pb2.StopWorkflowResponse:
        async with answered(context):
            run = await self._workflows.stop(request.name, force=request.force)
            note("stop", resource=key("Workflow", request.name), run=run.number, force=request.force)
            return resource_pb2.StopWorkflowResponse(run=run.number)
        raise AssertionError("unreachable")

    async def WatchResource(
        self, request: resource_pb2.GetResourceRequest, context: Context
    ) -> AsyncIterator[resource_pb2.Resource]:
        async with answered(context):
            name = JobName(key(checked_kind(request.kind), request.name))
            async for shown in self._desired.watch_resource(name):
                yield self._message(shown)

    def _message(self, shown: ShownResource) -> resource_pb2.Resource:
        found = message(shown)
        if isinstance(shown.view.manifest, WorkflowManifest):
            run, _ = self._workflows.progress(shown.view)
            if run is not None:
                found.workflow_run.CopyFrom(run_message(run, shown))
            found.steps.extend(steps_of(self._workflows, shown))
        return found


def run_message(run: WorkflowRun, shown: ShownResource) -> resource_pb2.WorkflowRun:
    """The phase is that of its steps, which may be a moment ahead of what is on record."""
    return resource_pb2.WorkflowRun(
        number=run.number,
        phase=shown.status.get("phase", ""),
        trigger=run.trigger,
        created=convert.timestamp(run.created_ns),
        ended=convert.timestamp(run.ended_ns) if not run.goes_on else None,
        tick=convert.timestamp(None if run.tick_seconds is None else run.tick_seconds * SECOND_NS),
    )


def steps_of(workflows: Workflows, shown: ShownResource) -> Iterator[resource_pb2.WorkflowStep]:
    """How each step stands, in an order in which none comes before what it needs."""
    run_at, states = workflows.progress(shown.view)
    if run_at is None:
        return
    needs = {step.name: step.all_needs for step in plan_of(shown.view, run_at).spec.steps}
    for state in states.values():
        run = state.run
        yield resource_pb2.WorkflowStep(
            name=state.name,
            job=state.job,
            phase=state.phase,
            reason=state.reason,
            message=state.message,
            run_id=run.id if run is not None else "",
            needs=[f"{need.step}:{need.outcome}" for need in needs.get(state.name, ())],
            started=convert.timestamp(run.started_ns) if run is not None else None,
            ended=convert.timestamp(run.ended_ns) if run is not None else None,
            outputs=state.outputs,
        )


def checked_kind(kind: str) -> str:
    """Raises InvalidRequest."""
    if kind not in RESOURCE_KINDS:
        raise InvalidRequest("kind", f"{kind!r} is no kind of resource", todo=f"use {', '.join(RESOURCE_KINDS)}")
    return kind


def message(shown: ShownResource) -> resource_pb2.Resource:
    view = shown.view
    return resource_pb2.Resource(
        kind=view.manifest.kind,
        name=view.manifest.metadata.name,
        uid=view.uid,
        labels=view.manifest.metadata.labels,
        annotations=view.manifest.metadata.annotations,
        generation=view.generation,
        source=str(view.source),
        deleting=view.deleting,
        created=convert.timestamp(view.created_ns),
        updated=convert.timestamp(view.updated_ns),
        manifest=to_yaml(view.manifest),
        conditions=map(convert.condition, view.conditions),
        status=shown.status,
        used_by=shown.users,
    )
