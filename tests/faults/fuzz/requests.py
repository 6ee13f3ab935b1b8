"""gRPC requests for every method that the daemon's reflection tells of, through the TLS front: valid, mutated, huge."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from jobletd.services.server import methods
from tests.faults.fuzz.mutation import Mutation
from tests.integration.host import PATIENCE, Host

CALL_SECONDS = 2.0
SAMPLES_A_METHOD = 12
MESSAGES_READ = 20
TOO_LARGE_BYTES = 70 << 20
ENDS_THE_DAEMON = "/joblet.v1.NodeService/Drain"  # rightly: it is left out
DEFECTS = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNIMPLEMENTED)
JOB = b"{apiVersion: joblet/v1, kind: Job, metadata: {name: %s}, spec: {command: ['true']}}"
TEXTS = (
    "",
    "a",
    "load-1",
    "quiet",
    "../../x",
    "a" * 5000,
    "\x00",
    "ä\u2028",
    "Volume",
    "Secret",
    "stdout",
    "RUNNING",
    "k=v,!x",
    "0" * 64,
)
NUMBERS = (0, 1, -1, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63), 2**32)


@dataclass(slots=True)
class Answers:
    """What was answered. defects: calls that got an answer that no input may get, or none."""

    codes: Counter[str] = field(default_factory=Counter)
    defects: list[str] = field(default_factory=list)

    @property
    def tried(self) -> int:
        return sum(self.codes.values())


def served(channel: grpc.Channel) -> list[str]:
    """The services that reflection tells of."""
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=10 * PATIENCE)
    return [service.name for service in answer.list_services_response.service]


def described(channel: grpc.Channel) -> Iterator[tuple[str, MethodDescriptor]]:
    """Every method by its path."""
    pool = descriptor_pool.Default()
    for name in served(channel):
        service = pool.FindServiceByName(name)
        for method in service.methods:
            yield f"/{name}/{method.name}", method


def fuzz_requests(host: Host, *, seed: str, seconds: float) -> Answers:
    """Call every method with what the seed gives, in turn, for so long."""
    host.client()
    channel = host.channels["admin"]
    found = dict(described(channel))
    assert found.keys() == set(methods()), "reflection and the daemon differ about what is served"
    del found[ENDS_THE_DAEMON]
    mutations = {path: Mutation(list(samples(method, seed))) for path, method in found.items()}
    answers = Answers()
    deadline = time.monotonic() + seconds
    number = 0
    while time.monotonic() < deadline or number < SAMPLES_A_METHOD:
        for path, method in found.items():
            chance = random.Random(f"{seed}/{path}/{number}")
            mutated = mutations[path].input(f"{seed}/{path}", number)
            requests = [filled(method, chance) if chance.random() < 0.6 else mutated]
            if method.client_streaming:
                requests += [
                    mutations[path].input(f"{seed}/{path}/more", chance.randrange(10_000))
                    for _ in range(chance.randrange(4))
                ]
            call(channel, path, method, requests, answers)
        number += 1
    call(
        channel, "/joblet.v1.JobService/Apply", found["/joblet.v1.JobService/Apply"], [bytes(TOO_LARGE_BYTES)], answers
    )
    return answers


def call(channel: grpc.Channel, path: str, method: MethodDescriptor, requests: list[bytes], answers: Answers) -> None:
    """One call with raw bytes; its status is noted."""
    kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    stub = getattr(channel, kind)(path, request_serializer=None, response_deserializer=None)
    given: Any = iter(requests) if method.client_streaming else requests[0]
    # What answers as long as it is followed is left alone soon.
    limit = (0.05 if method.server_streaming else 10 * CALL_SECONDS) * PATIENCE
    code = grpc.StatusCode.OK
    details = ""
    try:
        answer = stub(given, timeout=limit)
        if method.server_streaming:
            for count, _ in enumerate(answer):
                if count == MESSAGES_READ:
                    answer.cancel()
                    break
    except grpc.RpcError as error:
        code, details = error.code(), error.details() or ""
    answers.codes[code.name] += 1
    if code in DEFECTS or (code is grpc.StatusCode.DEADLINE_EXCEEDED and not method.server_streaming):
        answers.defects.append(f"{path}: {code.name} {details}: {[request[:300] for request in requests]}")


def samples(method: MethodDescriptor, seed: str) -> Iterator[bytes]:
    """Messages of the method's own type, with values at the edges of theirs."""
    chance = random.Random(f"{seed}/{method.full_name}")
    yield b""
    for _ in range(SAMPLES_A_METHOD - 1):
        yield filled(method, chance)


def filled(method: MethodDescriptor, chance: random.Random) -> bytes:
    """One message of the method's own type."""
    message = message_factory.GetMessageClass(method.input_type)()
    fill(message, chance, depth=0)
    return message.SerializeToString()


def fill(message: Message, chance: random.Random, *, depth: int) -> None:
    """Some of its fields."""
    fields: Any = message.DESCRIPTOR.fields
    for one in fields:
        if chance.random() < 0.3 or depth > 3:
            continue
        repeated = one.is_repeated
        if one.message_type is not None and one.message_type.GetOptions().map_entry:
            continue
        if one.message_type is not None:
            target = getattr(message, one.name)
            for inner in [target.add() for _ in range(chance.randrange(3))] if repeated else [target]:
                fill(inner, chance, depth=depth + 1)
                if not repeated:
                    inner.SetInParent()
        elif repeated:
            getattr(message, one.name).extend(value_of(one, chance) for _ in range(chance.randrange(3)))
        else:
            setattr(message, one.name, value_of(one, chance))


def value_of(one: FieldDescriptor, chance: random.Random) -> Any:
    """A value that the field's type can have."""
    if one.enum_type is not None:
        return chance.choice(one.enum_type.values).number
    if one.type == FieldDescriptor.TYPE_STRING:
        return chance.choice(TEXTS)
    if one.type == FieldDescriptor.TYPE_BYTES:
        return chance.choice((b"", b"\xff", bytes(3000), JOB % b"quiet", JOB % b"load-1", b"{"))
    if one.type == FieldDescriptor.TYPE_BOOL:
        return chance.random() < 0.5
    if one.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        return chance.choice((0.0, -1.0, float("inf"), float("nan")))
    bits = (
        32 if one.type in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_SINT32) else 64
    )
    unsigned = one.type in (FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_UINT64)
    low, high = (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return chance.choice([number for number in NUMBERS if low <= number <= high])
