"""What a client call costs, process and all, beside an empty Python start plus ``import grpc``."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from joblet.api.v1 import job_pb2
from tests.bench.recorded import text_of
from tests.bench.report import BenchResult, at_most, print_ratios, timing_bars, timing_table
from tests.bench.rounds import Timing, alternate
from tests.unit.rnx.service import make_job, make_run, serve

ROUNDS = 25
WITHIN_SECONDS = 16.0
BULK_ROUNDS = 5
JOBS = 20
MANIFESTS = 1_000
HELP, LIST, ONE = "rnx --help", "rnx list", "rnx apply, 1 manifest"
BULK = f"rnx apply, {MANIFESTS:,} manifests"
GRPC, PYTHON = "Python + import grpc", "Python"
BUDGETS = {HELP: 1.5, LIST: 3.0}
ABOUT = (
    "Whole processes, from fork to exit. The daemon they ask is a canned one on loopback with TLS and client certificates, which "
    f"answers at once, so that the client is what is measured; `rnx list` shows {JOBS} jobs, a manifest has 12 lines. The "
    "peers are the interpreter that they run in, doing nothing, and importing grpc."
)


def run() -> BenchResult:
    python = sys.executable
    rnx = str(Path(python).parent / "rnx")
    with tempfile.TemporaryDirectory() as name, serve(Path(name)) as service:
        directory = Path(name)
        service.answers.jobs = {f"job-{n}": make_job(f"job-{n}", make_run(job=f"job-{n}")) for n in range(JOBS)}
        service.answers.apply = created
        config = str(service.config())
        write(directory / "one.yml", 1)
        write(directory / "many.yml", MANIFESTS)
        commands = {
            HELP: [rnx, "--help"],
            LIST: [rnx, "--config", config, "list"],
            ONE: [rnx, "--config", config, "apply", "-f", f"{directory}/one.yml"],
            GRPC: [python, "-c", "import grpc"],
            PYTHON: [python, "-c", ""],
        }
        timings = measured(commands, ROUNDS)
        bulk = measured({BULK: [*commands[ONE][:-1], f"{directory}/many.yml"], GRPC: commands[GRPC]}, BULK_ROUNDS)
    for ours in (HELP, LIST, ONE):
        print_ratios(ours, {key: value for key, value in timings.items() if key in (ours, GRPC, PYTHON)})
    print_ratios(BULK, bulk)
    return result_of(timings, bulk)


def write(path: Path, manifests: int) -> None:
    path.write_text("---\n".join(text_of(f"job-{number}", number) for number in range(manifests)))


def created(request: job_pb2.ApplyRequest) -> list[job_pb2.ApplyResult]:
    """What the daemon answers of jobs that are new. It need not read the manifests: the client has checked them."""
    names = re.findall(rb"^  name: (\S+)$", request.manifest, flags=re.MULTILINE)
    return [
        job_pb2.ApplyResult(name=one.decode(), kind="Job", action="created", generation=1, run_id="r") for one in names
    ]


def measured(commands: Mapping[str, list[str]], rounds: int) -> dict[str, Timing]:
    calls = {name: lambda command=command: call(command) for name, command in commands.items()}
    return alternate(calls, rounds=rounds, warm_up=1, within_seconds=WITHIN_SECONDS)


def call(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def result_of(timings: Mapping[str, Timing], bulk: Mapping[str, Timing]) -> BenchResult:
    def times(ours: str, found: Mapping[str, Timing]) -> float:
        return found[ours].median / found[GRPC].median

    summary = [f"{ours}: ratio to {GRPC}: {times(ours, timings):.2f}" for ours in (HELP, LIST, ONE)]
    a_manifest = (bulk[BULK].median - timings[ONE].median) / (MANIFESTS - 1)
    summary.append(f"{BULK}: {bulk[BULK].median:.0f} ms; each further manifest {a_manifest:.2f} ms")
    return BenchResult(
        name="client",
        title="The client",
        about=ABOUT,
        summary=tuple(summary),
        tables=(
            timing_table("A call, in terms of the interpreter that imports grpc", GRPC, timings),
            timing_table("Many manifests, in terms of the same", GRPC, bulk),
        ),
        plots=(timing_bars("client", "A call of the client", HELP, {**timings, BULK: bulk[BULK]}),),
        budgets=tuple(
            at_most(f"`{ours}` beside {GRPC}", limit, times(ours, timings), "times") for ours, limit in BUDGETS.items()
        ),
    )
