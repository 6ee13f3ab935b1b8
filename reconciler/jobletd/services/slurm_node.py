"""SlurmNodeService: what this host tells about attempts that Slurm has run on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from joblet import __version__
from joblet.api.v1 import job_pb2, slurm_node_pb2, slurm_node_pb2_grpc
from jobletd.executor.slurm_node.telling import KeptAttempts
from jobletd.services import convert
from jobletd.services.access import caller
from jobletd.services.jobs import note, parts_of
from jobletd.services.requests import log_query_of
from jobletd.services.status_codes import answered

Context = grpc.aio.ServicerContext[Any, Any]


class SlurmNodeService(slurm_node_pb2_grpc.SlurmNodeServiceServicer):
    """See schemas/joblet/v1/slurm_node.proto."""

    def __init__(self, attempts: KeptAttempts, *, message_bytes: int) -> None:
        self._attempts = attempts
        self._page_bytes = message_bytes // 4

    async def ListAttempts(
        self, request: slurm_node_pb2.ListAttemptsRequest, context: Context
    ) -> slurm_node_pb2.ListAttemptsResponse:
        async with answered(context):
            told = await self._attempts.told(request.attempt_ids)
            return slurm_node_pb2.ListAttemptsResponse(
                attempts=[
                    slurm_node_pb2.NodeAttempt(
                        attempt_id=one.attempt_id,
                        claim=one.claim,
                        state=one.state,
                        usage=one.usage,
                        exit=one.exit,
                        log_bytes=one.log_bytes,
                    )
                    for one in told
                ],
                version=__version__,
            )
        raise AssertionError("unreachable")

    async def ReadAttemptLog(
        self, request: slurm_node_pb2.ReadAttemptLogRequest, context: Context
    ) -> AsyncIterator[job_pb2.LogsResponse]:
        async with answered(context):
            wanted = job_pb2.LogsRequest(follow=request.follow, stream=request.stream)
            if request.HasField("tail_lines"):
                wanted.tail_lines = request.tail_lines
            if request.HasField("since"):
                wanted.since.CopyFrom(request.since)
            async for batch in self._attempts.log(request.attempt_id, log_query_of(wanted)):
                for part in parts_of(batch, self._page_bytes):
                    yield job_pb2.LogsResponse(entries=[convert.log_entry(entry) for entry in part])

    async def FetchAttemptLog(
        self, request: slurm_node_pb2.FetchAttemptLogRequest, context: Context
    ) -> AsyncIterator[slurm_node_pb2.FetchAttemptLogResponse]:
        async with answered(context):
            blocks = self._attempts.log_blocks(request.attempt_id, request.part, request.offset, follow=request.follow)
            async for block in blocks:
                yield slurm_node_pb2.FetchAttemptLogResponse(
                    part=block.part, offset=block.offset, data=block.data, oldest_part=block.oldest
                )

    async def FenceAttempt(
        self, request: slurm_node_pb2.FenceAttemptRequest, context: Context
    ) -> slurm_node_pb2.FenceAttemptResponse:
        async with answered(context):
            fenced, claim = await self._attempts.fence(request.attempt_id, caller.get().name)
            note("fence", attempt=request.attempt_id, fenced=fenced)
            return slurm_node_pb2.FenceAttemptResponse(fenced=fenced, claim=claim)
        raise AssertionError("unreachable")

    async def ForgetAttempt(
        self, request: slurm_node_pb2.ForgetAttemptRequest, context: Context
    ) -> slurm_node_pb2.ForgetAttemptResponse:
        async with answered(context):
            await self._attempts.forget(request.attempt_id)
            return slurm_node_pb2.ForgetAttemptResponse()
        raise AssertionError("unreachable")
