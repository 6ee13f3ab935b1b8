"""What is true of this host at a scrape: jobs by phase, who waits, what runs use, sources, certificates, conditions."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from joblet import __version__
from jobletd.executor import Executor
from jobletd.metrics.instruments import SECOND_NS
from jobletd.model import Condition, Phase
from jobletd.monitoring.live import Live, live_runs, usage_of
from jobletd.reconciler import Reconciler
from jobletd.registry import Registry
from jobletd.resources import READY

NO_RUN = "NONE"  # the phase of a job that has no run


@dataclass(frozen=True, slots=True)
class Facts:
    """synced_ns: when each GitSource was last seen in line, by its name. max_jobs: that have figures of their own."""

    registry: Registry
    reconciler: Reconciler
    executor: Executor
    conditions: Callable[[], Iterable[Condition]]
    certificates: Callable[[], Iterable[tuple[str, int]]]
    synced_ns: Callable[[], Iterable[tuple[str, int | None]]]
    spool_files_refused: Callable[[], int]
    max_jobs: int

    async def collect(self) -> list[Metric]:
        """Everything, in the event loop."""
        return [
            build_info(),
            *self._of_jobs(),
            *self._of_the_node(),
            *self._of_executors(),
            *self._of_sources(),
            *await self._of_runs(),
        ]

    def _of_jobs(self) -> Iterable[Metric]:
        views = self.registry.views.values()
        phases = Counter(view.runs[0].phase.value if view.runs else NO_RUN for view in views)
        jobs = GaugeMetricFamily("joblet_jobs", "Jobs, by the phase of their latest run.", labels=["phase"])
        for phase in (*Phase, NO_RUN):
            jobs.add_metric([str(phase)], phases[str(phase)])
        yield jobs
        yield GaugeMetricFamily("joblet_queue_length", "Runs that wait for a place.", len(self.registry.waiting))
        running = len(self.reconciler.places)
        yield GaugeMetricFamily("joblet_runs_active", "Runs that have a live attempt.", running)
        depth = self.reconciler.work_queue_length
        yield GaugeMetricFamily("joblet_reconcile_queue_length", "Jobs that want a look.", depth)

    def _of_the_node(self) -> Iterable[Metric]:
        cordoned = float(self.registry.cordon is not None)
        yield GaugeMetricFamily("joblet_node_cordoned", "1 while nothing is launched.", cordoned)
        status = GaugeMetricFamily("joblet_node_condition", "1 for a condition that is True.", labels=["condition"])
        for condition in self.conditions():
            status.add_metric([condition.type], float(condition.status == "True"))
        yield status
        expiry = GaugeMetricFamily(
            "joblet_certificate_expiry_timestamp_seconds", "When a certificate ends.", labels=["certificate"]
        )
        for name, expires_ns in self.certificates():
            expiry.add_metric([name], expires_ns / SECOND_NS)
        yield expiry

    def _of_executors(self) -> Iterable[Metric]:
        available = GaugeMetricFamily(
            "joblet_executor_available", "1 while what runs attempts there answers.", labels=["executor"]
        )
        attempts = GaugeMetricFamily(
            "joblet_executor_attempts", "Attempts that have not ended, by where they are.", labels=["executor", "state"]
        )
        for one in self.executor.standing():
            available.add_metric([one.name], float(one.available))
            attempts.add_metric([one.name, "pending"], one.pending)
            attempts.add_metric([one.name, "running"], one.running)
        yield available
        yield attempts

    def _of_sources(self) -> Iterable[Metric]:
        jobs = GaugeMetricFamily("joblet_source_jobs", "Jobs, by the source that owns them.", labels=["source"])
        owned = Counter(_source_of(view.source.kind, view.source.owner) for view in self.registry.views.values())
        for source, count in sorted(owned.items()):
            jobs.add_metric([source], count)
        yield jobs
        refused = self.spool_files_refused()
        yield GaugeMetricFamily("joblet_spool_files_refused", "Files of the spool with errors that stand.", refused)
        ready = GaugeMetricFamily("joblet_git_source_ready", "1 for a repository that is in line.", labels=["source"])
        for view in self.registry.resources.values():
            if view.name.startswith("gitsource/"):
                told = any(one.type == READY and one.status == "True" for one in view.conditions)
                ready.add_metric([view.manifest.metadata.name], float(told))
        yield ready
        synced = GaugeMetricFamily(
            "joblet_git_source_synced_timestamp_seconds", "When it was last seen in line.", labels=["source"]
        )
        for name, when_ns in self.synced_ns():
            if when_ns is not None:
                synced.add_metric([name], when_ns / SECOND_NS)
        yield synced

    async def _of_runs(self) -> list[Metric]:
        """Those that run longest come first, so that a job that has figures keeps them until it ends."""
        runs = live_runs(self.registry)
        shown = runs[: self.max_jobs]
        used = await usage_of(shown, self.executor)
        left_out = len(runs) - len(shown)
        others = GaugeMetricFamily("joblet_jobs_without_figures", "Running jobs beyond metrics.maxJobs.", left_out)
        return [others, *usage_metrics(used)]


def usage_metrics(found: Iterable[Live]) -> list[Metric]:
    """What each running job uses, the indexes of an array together; a counter begins anew with the next attempt, which Prometheus
    knows to handle."""
    families: list[tuple[GaugeMetricFamily | CounterMetricFamily, str]] = [
        (GaugeMetricFamily("joblet_job_memory_bytes", "Memory in use.", labels=["job_name"]), "memory_bytes"),
        (
            GaugeMetricFamily("joblet_job_memory_peak_bytes", "Most memory so far.", labels=["job_name"]),
            "memory_peak_bytes",
        ),
        (GaugeMetricFamily("joblet_job_pids", "Processes and threads.", labels=["job_name"]), "pids"),
        (CounterMetricFamily("joblet_job_cpu_seconds", "CPU time.", labels=["job_name"]), "cpu_seconds"),
        (
            CounterMetricFamily(
                "joblet_job_cpu_throttled_seconds", "Time held back by limits.cpu.", labels=["job_name"]
            ),
            "throttled_seconds",
        ),
        *(
            (
                CounterMetricFamily(
                    f"joblet_job_{name}_pressure_seconds", f"Time in which it waited for {what}.", labels=["job_name"]
                ),
                f"{name}_pressure_seconds",
            )
            for name, what in (("cpu", "a CPU"), ("memory", "memory"), ("io", "disks"))
        ),
        (CounterMetricFamily("joblet_job_oom_kills", "Processes killed for memory.", labels=["job_name"]), "oom_kills"),
        (CounterMetricFamily("joblet_job_io_read_bytes", "Read from disks.", labels=["job_name"]), "io_read_bytes"),
        (
            CounterMetricFamily("joblet_job_io_written_bytes", "Written to disks.", labels=["job_name"]),
            "io_write_bytes",
        ),
    ]
    limit = GaugeMetricFamily("joblet_job_memory_limit_bytes", "Memory that it may use.", labels=["job_name"])
    used: dict[tuple[str, str], float] = {}
    limits: dict[str, float] = {}
    for one in found:
        for _, field in families:
            if (value := getattr(one.usage, field)) is not None:
                used[field, one.job] = used.get((field, one.job), 0) + value
        if one.memory_limit_bytes is not None:
            limits[one.job] = limits.get(one.job, 0) + one.memory_limit_bytes
    by_field = {field: family for family, field in families}
    for (field, job), value in used.items():
        by_field[field].add_metric([job], value)
    for job, value in limits.items():
        limit.add_metric([job], value)
    return [limit, *(family for family, _ in families)]


def build_info() -> Metric:
    return InfoMetricFamily(
        "joblet_build", "What runs.", value={"version": __version__, "python": platform.python_version()}
    )


def _source_of(kind: str, owner: str) -> str:
    """A repository by its name; spool and clients as one each, whatever files and names they have."""
    return owner if kind == "git" else kind
