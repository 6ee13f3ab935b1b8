"""Whom a job tells how its runs end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import Field

from joblet.manifest import fields as f
from joblet.manifest.fields import ListInput, MappingInput
from joblet.manifest.model_base import ManifestModel


class SigningKey(ManifestModel):
    """A value of a Secret, with which requests to a webhook are signed."""

    name: f.Name = Field(description="The secret's name, as in its own manifest.")
    key: f.OptionalSecretKey = Field(default=None, description="Which of its values. Default: its only one.")


class Hook(ManifestModel):
    """What is done when a run has ended in one of these ways. Either webhook or command says what."""

    on: Annotated[tuple[f.HookEventChoice, ...], ListInput] = Field(
        min_length=1,
        description="Succeeded; Failed (also for want of time); TimedOut; Stopped; Finished: any of these.",
    )
    webhook: f.OptionalWebhook = Field(
        default=None,
        description="A URL that gets a POST with a JSON body; one that the daemon's configuration allows.",
    )
    sign: Annotated[SigningKey | None, MappingInput] = Field(default=None, description=str(SigningKey.__doc__))
    command: Annotated[tuple[f.Argument, ...] | None, ListInput] = Field(
        default=None,
        min_length=1,
        description="A command that runs as a job of its own, in a sandbox as this job's; $JOBLET_NOTIFICATION has the body.",
    )


def hook_problems(position: int, hook: Mapping[str, object]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Broken rules of one raw hook: path below the spec, and what is wrong."""
    given = [way for way in ("webhook", "command") if way in hook]
    if len(given) != 1:
        what = "has both webhook and command" if given else "says nothing to do"
        yield ("notify", position), f"{what}; exactly one of webhook and command is allowed"
    if "sign" in hook and "webhook" not in hook:
        yield ("notify", position, "sign"), "only requests to a webhook are signed"
