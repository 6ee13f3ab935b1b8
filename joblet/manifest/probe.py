"""How a service is asked whether it is well, and how it is changed while it serves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import Field

from joblet.manifest import fields as f
from joblet.manifest.choices import ProbeFailure
from joblet.manifest.fields import ListInput, MappingInput
from joblet.manifest.model_base import ManifestModel

WAYS = ("command", "tcp", "http")


class HttpProbe(ManifestModel):
    """A request to the job's own loopback address; a status of 200 to 399 is well. No redirect is followed."""

    port: f.Port = Field(description="The port in the job's network.")
    path: f.HttpPath = Field(default="/", description="What is asked for, query included.")


class Probe(ManifestModel):
    """How a service is asked whether it is well. One of command, tcp and http says in which way."""

    command: Annotated[tuple[f.Argument, ...] | None, ListInput] = Field(
        default=None, min_length=1, description="A command in the job's own sandbox; it is well if that exits with 0."
    )
    tcp: f.OptionalPort = Field(default=None, description="A port in the job's network that takes connections.")
    http: Annotated[HttpProbe | None, MappingInput] = Field(default=None, description=str(HttpProbe.__doc__))
    interval_seconds: f.Pace = Field(default=10.0, alias="interval", description="The pause between two probes.")
    timeout_seconds: f.Pace = Field(default=2.0, alias="timeout", description="How long one may take.")
    startup_seconds: f.Pace = Field(
        default=60.0,
        alias="startup",
        description="How long after its start it may take until the first probe that is well; so long it is asked each second.",
    )
    failures: f.Streak = Field(default=3, description="After so many in a row that are not well it is not ready.")
    successes: f.Streak = Field(default=1, description="After so many in a row that are well it is ready.")
    on_failure: f.ProbeFailureChoice = Field(
        default=ProbeFailure.REPORT,
        alias="onFailure",
        description="Report: it is shown; Restart: the command is stopped, and started again after the pause of a retry.",
    )


class Update(ManifestModel):
    """How a service is changed."""

    max_unavailable: f.MaxUnavailable = Field(
        default=1,
        alias="maxUnavailable",
        description="1: what runs is stopped, then the new one starts; 0: it is stopped once the new one is ready.",
    )


def probe_problems(spec: Mapping[str, object]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Broken rules of a raw spec: path below it, and what is wrong."""
    probe, update = spec.get("probe"), spec.get("update")
    if isinstance(probe, Mapping):
        given = [way for way in WAYS if way in probe]
        if len(given) != 1:
            what = f"has {' and '.join(given)}" if given else "says no way to ask"
            yield ("probe",), f"{what}; exactly one of {', '.join(WAYS)} is allowed"
        if spec.get("restart") != "Always":
            yield ("probe",), "works only with restart: Always; another job is well if it ends well"
    if isinstance(update, Mapping) and update.get("maxUnavailable") == 0 and not isinstance(probe, Mapping):
        yield ("update", "maxUnavailable"), "0 needs a probe, which says when the new one is ready"
