"""What whoever is to know of a run's end is told: the body of a webhook's request, in a form that stays."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from joblet.manifest.choices import HookEvent


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NotifiedJob(_Part):
    """The job whose run ended, or the workflow."""

    name: str
    labels: dict[str, str]
    generation: int = Field(description="The generation that the run belongs to.")
    source: str = Field(
        description="Where the job came from: spool:<file>, grpc:<client>, git:<GitSource>@<commit>:<file>."
    )


class NotifiedUsage(_Part):
    """What its last attempt used; what the host cannot tell is left out."""

    memory_peak_bytes: int | None = Field(default=None, alias="memoryPeakBytes")
    cpu_seconds: float | None = Field(default=None, alias="cpuSeconds")
    oom_kills: int | None = Field(default=None, alias="oomKills")


class NotifiedArray(_Part):
    """Of a job with an array: how many indexes came to what. They are told of together, once."""

    count: int
    succeeded: int
    failed: int
    stopped: int
    not_run: int = Field(alias="notRun", description="Not needed any more, or stopped before their turn.")
    failed_indexes: str = Field(alias="failedIndexes", description="As in 3, 5-9; the first few of many.")


class NotifiedRun(_Part):
    """The run that ended. Times are RFC 3339 in UTC."""

    id: str
    trigger: str
    phase: Literal["COMPLETED", "FAILED", "STOPPED"]
    reason: str = Field(
        description="Why, as one CamelCase word: Completed, ExitCode, OOMKilled, TimedOut, DependencyFailed ..."
    )
    message: str = Field(description="One sentence for people.")
    exit_code: int | None = Field(
        default=None, alias="exitCode", description="As a shell gives it; left out if not known."
    )
    attempts: int = Field(description="The number of its last attempt; 0: it never began.")
    created: str
    started: str | None = None
    ended: str
    usage: NotifiedUsage = NotifiedUsage()
    array: NotifiedArray | None = None


class NotifiedStep(_Part):
    """How a step of a workflow stands."""

    name: str
    phase: str = Field(description="As of a run; SKIPPED if it was not to run.")
    reason: str
    message: str


class NotifiedWorkflow(_Part):
    """The workflow that ended, and its steps in an order in which none comes before what it needs."""

    name: str
    run: int = Field(description="The number of its run.")
    steps: list[NotifiedStep]


class Notification(_Part):
    """One notification. Keys may be added in time; none changes its meaning or goes away within joblet/v1."""

    api_version: Literal["joblet/v1"] = Field(default="joblet/v1", alias="apiVersion")
    kind: Literal["Notification"] = "Notification"
    id: str = Field(description="The same in each delivery of one notification, of which there may be more than one.")
    event: Literal["Succeeded", "Failed", "TimedOut", "Stopped"] = Field(description="How the run ended.")
    node: str = Field(description="The host's name.")
    job: NotifiedJob
    run: NotifiedRun
    workflow: NotifiedWorkflow | None = Field(
        default=None,
        description="Where a workflow ended: job.name is workflow/<name> then, and run.id its run's number.",
    )

    def text(self) -> str:
        """As it is sent: JSON on one line, ASCII, what is not known left out."""
        data = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return json.dumps(data, separators=(",", ":"))


EVENTS = tuple(event for event in HookEvent if event is not HookEvent.FINISHED)


def schema_text() -> str:
    """The schema as the published file holds it."""
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:joblet:schema:notification:v1",
        **Notification.model_json_schema(by_alias=True, mode="serialization"),
    }
    schema["title"] = "Joblet notification, version 1"
    return json.dumps(_open(schema), indent=2, ensure_ascii=False) + "\n"


def _open(schema: Any) -> Any:
    """Keys may be added: who checks bodies by the schema must not refuse them for it. Nor is null ever sent."""
    if isinstance(schema, list):
        return [_open(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _open(value) for key, value in schema.items() if key != "additionalProperties" or value is not False}
    if "anyOf" in found and {"type": "null"} in found["anyOf"]:
        kept = [one for one in found.pop("anyOf") if one != {"type": "null"}]
        found = {**found, **kept[0]}
        found.pop("default", None)
    return found
