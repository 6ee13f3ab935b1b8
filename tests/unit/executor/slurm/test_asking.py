"""Slurm's commands and slurmrestd: what they are asked, and how their answers are read."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from joblet.manifest import JobManifest
from jobletd.executor import AttemptRequest
from jobletd.executor.slurm import rest
from jobletd.executor.slurm.client import SlurmJob, SlurmRefused, SlurmUnavailable
from jobletd.executor.slurm.commands import (
    _JOB_FIELDS,
    CommandClient,
    is_refusal,
    options,
    parse_exit,
    parse_job,
    parse_nodes,
)
from jobletd.executor.slurm.settings import SlurmSettings
from jobletd.executor.slurm.submission import minutes_of, request_document, submission_of
from jobletd.model import AttemptId

SETTINGS = SlurmSettings(directory="/d", shared_directory="/shared", partition="main")


def manifest(**spec: Any) -> JobManifest:
    document = {
        "apiVersion": "joblet/v1",
        "kind": "Job",
        "metadata": {"name": "one"},
        "spec": {"command": ["true"], **spec},
    }
    return JobManifest.model_validate(document)


def submitted(seconds: float | None = None, **spec: Any) -> tuple[list[str], dict[str, Any], str]:
    """The options of sbatch, what slurmrestd gets, and the script."""
    found = manifest(**spec)
    document = request_document(AttemptRequest(AttemptId("one-r-1"), "r", 1, found, seconds), SETTINGS, 10**9)
    wanted = submission_of(document, found, SETTINGS)
    return options(wanted), rest.properties(wanted), wanted.script


def test_a_job_becomes_what_sbatch_takes() -> None:
    given, properties, script = submitted(
        limits={"cpu": "150%", "memory": "100Mi"},
        attemptTimeout="90s",
        stop={"grace": "10s"},
        priority=60,
        slurm={"account": "lab", "qos": "high", "constraint": "ssd&avx", "node": "n2", "exclude": ["n3", "n1"]},
    )
    for wanted in (
        *(
            "--job-name=joblet-one-r-1",
            "--comment=r",
            "--no-requeue",
            "--export=ALL",
            "--cpus-per-task=2",
            "--mem=164M",
        ),
        *("--time=3", "--nice=-1000", "--partition=main", "--account=lab", "--qos=high", "--constraint=ssd&avx"),
        *("--nodelist=n2", "--exclude=n3,n1", "--output=/shared/attempts/one-r-1/slurm.out"),
    ):
        assert wanted in given
    assert (properties["memory_per_node"], properties["time_limit"], properties["nice"]) == (164, 3, "-1000")
    assert (properties["requeue"], properties["required_nodes"]) == (False, ["n2"])
    first, second, *encoded, mark, _ = script.split("\n")
    assert first == "#!/bin/sh" and second == f"exec /opt/joblet/bin/joblet sandbox-exec <<'{mark}'"
    request = json.loads(base64.b64decode("".join(encoded)))
    assert request["attempt_id"] == "one-r-1" and request["executor"]["shared_directory"] == "/shared"
    assert JobManifest.model_validate(request["manifest"]).spec.priority == 60


def test_a_job_without_limits_asks_for_none() -> None:
    given, _, _ = submitted()
    assert not [one for one in given if one.startswith(("--mem", "--time", "--nice", "--account", "--nodelist"))]


def test_minutes_are_rounded_up_and_leave_room_for_the_nodes_own_end() -> None:
    assert minutes_of(manifest(stop={"grace": "0s"}), 60.0) == 2
    assert minutes_of(manifest(stop={"grace": "1s"}), 60.0) == 3
    assert minutes_of(manifest(attemptTimeout="1h"), 60.0) == 3
    assert minutes_of(manifest(), None) is None


def line(*texts: str) -> str:
    widths = [int(field.partition(":")[2]) for field in _JOB_FIELDS]
    return "".join(text.ljust(width) for text, width in zip(texts, widths, strict=True))


def test_jobs_are_read_from_squeue() -> None:
    found = parse_job(
        line("17", "FAILED", "3:0", "1", "2026-01-02T03:04:05", "n2", "NonZeroExitCode", "joblet-one-r-1")
    )
    assert found == SlurmJob("17", "joblet-one-r-1", "FAILED", "NonZeroExitCode", "n2", 3, 0, 1767323045, 1)
    waiting = parse_job(line("18", "PENDING", "0:0", "0", "N/A", "n/a", "None", "joblet-two-r-1"))
    assert waiting is not None and (waiting.node, waiting.reason, waiting.started) == ("", "", 0)
    assert parse_job(line("19", "RUNNING", "0:0", "0", "N/A", "n1", "None", "somebody-elses")) is None


@pytest.mark.parametrize(
    ("text", "read"), [("3:0", (3, 0)), ("0:9", (0, 9)), ("768", (3, 0)), ("9", (0, 9)), ("", (None, 0))]
)
def test_exit_codes_are_read_as_each_version_writes_them(text: str, read: tuple[int | None, int]) -> None:
    assert parse_exit(text) == read


def test_a_node_of_several_partitions_is_one_node() -> None:
    lines = ["n1|main*|idle|0/2/0/2|0.50|1900|1000|10.0.0.1|none", "n1|big|idle|0/2/0/2|0.50|1900|1000|10.0.0.1|none"]
    first, second = parse_nodes("\n".join([*lines, "n2|main*|drained|0/0/2/2|N/A|1900|N/A|n2|disk"]))
    assert (first.name, first.partitions, first.load, first.cpus, first.reason) == ("n1", ("main", "big"), 0.5, 2, "")
    assert (first.address, second.address) == ("10.0.0.1", "n2")
    assert (second.state, second.reason, second.load, second.memory_used_bytes) == ("drained", "disk", None, 0)


@pytest.mark.parametrize(
    ("said", "final"),
    [
        ("Batch job submission failed: Invalid partition name specified", True),
        ("Batch job submission failed: Requested node configuration is not available", True),
        ("Batch job submission failed: Memory specification can not be satisfied", True),
        ("Batch job submission failed: Unable to contact slurm controller (connect failure)", False),
        ("Batch job submission failed: Socket timed out on send/recv operation", False),
        ("slurm_load_jobs error: Invalid authentication credential", False),
        ("Batch job submission failed: Zero Bytes were transmitted or received", False),
    ],
)
def test_what_no_second_try_mends_is_told_from_what_passes(said: str, final: bool) -> None:
    assert is_refusal(said) is final


def command(directory: Path, name: str, script: str) -> SlurmSettings:
    """Slurm's command of that name as a script; the settings that find it."""
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return replace(SETTINGS, prefix=("env", f"PATH={directory}:/usr/bin:/bin"), command_seconds=0.5)


def test_a_command_that_hangs_is_ended_and_slurm_is_away(tmp_path: Path) -> None:
    client = CommandClient(command(tmp_path, "squeue", "exec sleep 60"))
    with pytest.raises(SlurmUnavailable, match="no answer within") as caught:
        client.jobs()
    assert caught.value.maybe_done


def test_a_refusal_is_final_and_a_lost_controller_is_not(tmp_path: Path) -> None:
    wanted = submission_of(
        request_document(AttemptRequest(AttemptId("one-r-1"), "r", 1, manifest(), None), SETTINGS, 0),
        manifest(),
        SETTINGS,
    )
    refused = command(tmp_path, "sbatch", "echo 'sbatch: error: Batch job submission failed: Invalid qos' >&2; exit 1")
    with pytest.raises(SlurmRefused, match="Invalid qos"):
        CommandClient(refused).submit(wanted)
    away = command(tmp_path, "sbatch", "echo 'sbatch: error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(SlurmUnavailable):
        CommandClient(away).submit(wanted)
    odd = command(tmp_path, "sbatch", "echo welcome")
    with pytest.raises(SlurmUnavailable, match="answered with"):
        CommandClient(odd).submit(wanted)


def test_jobs_are_read_from_slurmrestd() -> None:
    one = {
        "job_id": 17,
        "name": "joblet-one-r-1",
        "job_state": "FAILED",
        "state_reason": "NonZeroExitCode",
        "batch_host": "n2",
    }
    assert rest.parse_job({**one, "exit_code": 768, "start_time": 5, "restart_cnt": 0}) == SlurmJob(
        "17", "joblet-one-r-1", "FAILED", "NonZeroExitCode", "n2", 3, 0, 5, 0
    )
    assert rest.parse_job({"name": "other"}) is None
    assert rest.errors_of({"errors": [{"error": "no"}, {"error": "no"}, {"description": "why"}]}) == "no; why"
