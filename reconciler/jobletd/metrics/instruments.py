"""Counters and histograms that the parts of the daemon count with, as they do their work.

They belong to the process, as there is one daemon in it, and cost the same whether anybody scrapes them or not. Every label has
few values, all of them ours: nothing that a client or a manifest chose.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

REGISTRY = CollectorRegistry()
SECOND_NS = 10**9
_MILLISECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_LONG = (0.01, 0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)

attempts_launched = Counter("joblet_attempts_launched", "Attempts handed to the executor.", registry=REGISTRY)
attempts_ended = Counter("joblet_attempts_ended", "Attempts that ended, by why.", ["reason"], registry=REGISTRY)
runs_ended = Counter("joblet_runs_ended", "Runs that are over for good.", ["phase", "reason"], registry=REGISTRY)
indexes_ended = Counter(
    "joblet_array_indexes_ended", "Indexes of arrays that are over for good.", ["phase", "reason"], registry=REGISTRY
)
attempt_duration = Histogram(
    "joblet_attempt_duration_seconds",
    "From a command's start to its attempt's end.",
    buckets=_LONG,
    registry=REGISTRY,
)
queue_wait = Histogram(
    "joblet_queue_wait_seconds",
    "From a run's making to the intent of its first attempt: what it waited for a place, or for what it uses.",
    buckets=(0.005, *_LONG),
    registry=REGISTRY,
)
launch_duration = Histogram(
    "joblet_launch_duration_seconds",
    "From an attempt's durable intent to its command's start.",
    buckets=_MILLISECONDS,
    registry=REGISTRY,
)
reconcile_duration = Histogram(
    "joblet_reconcile_duration_seconds",
    "One look at a job, with all steps that it took.",
    buckets=_MILLISECONDS,
    registry=REGISTRY,
)
reconcile_errors = Counter(
    "joblet_reconcile_errors", "Looks at a job that failed and are tried again.", registry=REGISTRY
)
store_commit_duration = Histogram(
    "joblet_store_commit_duration_seconds",
    "One commit of the database, the wait for its disk included.",
    buckets=(0.0005, *_MILLISECONDS),
    registry=REGISTRY,
)
store_transaction_duration = Histogram(
    "joblet_store_transaction_duration_seconds",
    "One transaction that changed something: all operations that share it, and its commit.",
    buckets=(0.0005, *_MILLISECONDS),
    registry=REGISTRY,
)
store_operations = Counter(
    "joblet_store_operations", "Operations on the database; those that come together share a commit.", registry=REGISTRY
)
store_errors = Counter("joblet_store_errors", "Commits of the database that failed.", registry=REGISTRY)
api_calls = Counter("joblet_api_calls", "Calls that were let in.", ["method"], registry=REGISTRY)
api_calls_refused = Counter(
    "joblet_api_calls_refused", "Calls that their caller may not make.", ["code"], registry=REGISTRY
)
connections_refused = Counter(
    "joblet_connections_refused", "Connections refused before any call.", ["reason"], registry=REGISTRY
)
trace_spans = Counter(
    "joblet_trace_spans", "Spans that the collector took, and that it did not.", ["outcome"], registry=REGISTRY
)


def seconds_between(earlier_ns: int, later_ns: int) -> float:
    """Of two readings of the wall clock; it may have been set back in between, and no histogram takes less than nothing."""
    return max(later_ns - earlier_ns, 0) / SECOND_NS
