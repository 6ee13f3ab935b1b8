"""What rnx top shows: messages of two streams merged into rows."""

from __future__ import annotations

from joblet.api.v1 import job_pb2, monitor_pb2
from rnx.top.board import Board, Order

ADDED, MODIFIED, DELETED, SYNCED = (
    job_pb2.WatchEvent.ADDED,
    job_pb2.WatchEvent.MODIFIED,
    job_pb2.WatchEvent.DELETED,
    job_pb2.WatchEvent.SYNCED,
)


def event(kind: job_pb2.WatchEvent.Type, name: str = "", phase: str = "RUNNING", run: str = "r1") -> job_pb2.WatchEvent:
    job = job_pb2.Job(name=name, runs=[job_pb2.Run(id=run, phase=phase)] if phase else [])
    return job_pb2.WatchEvent(type=kind, job=job)


def reading(**cpu: float) -> monitor_pb2.NodeUsage:
    return monitor_pb2.NodeUsage(
        jobs=[
            monitor_pb2.JobUsage(name=name, cpu_percent=share, usage=job_pb2.Usage(memory_bytes=round(1000 - share)))
            for name, share in cpu.items()
        ]
    )


def names(board: Board, order: Order = Order.NAME, **how: object) -> list[str]:
    return [row.name for row in board.rows(order, **how)]  # type: ignore[arg-type]


def test_rows_are_sorted_by_what_is_asked_for() -> None:
    board = Board()
    for name in ("a", "b", "c"):
        board.changed(event(ADDED, name))
    board.measured(reading(a=1, b=50, c=20))
    assert names(board, Order.CPU) == ["b", "c", "a"]
    assert names(board, Order.MEMORY) == ["a", "c", "b"]
    assert names(board, Order.NAME) == ["a", "b", "c"]


def test_what_does_not_run_has_no_figures_even_if_a_late_reading_has_some() -> None:
    board = Board()
    board.changed(event(ADDED, "a"))
    board.measured(reading(a=10))
    board.changed(event(MODIFIED, "a", "COMPLETED"))
    board.measured(reading(a=10))
    (row,) = board.rows(Order.CPU)
    assert row.use is None and row.cpu == 0
    assert names(board, only_running=True) == []


def test_another_run_begins_its_own_history() -> None:
    board = Board()
    board.changed(event(ADDED, "a"))
    board.measured(reading(a=10))
    board.changed(event(MODIFIED, "a", run="r2"))
    (row,) = board.rows(Order.CPU)
    assert list(row.history) == []


def test_what_was_deleted_while_nobody_watched_goes_with_the_next_watch() -> None:
    board = Board()
    board.changed(event(ADDED, "a"))
    board.changed(event(ADDED, "b"))
    board.begin()
    board.changed(event(ADDED, "b"))
    assert names(board) == ["a", "b"]  # nothing blinks meanwhile
    board.changed(event(SYNCED))
    assert names(board) == ["b"]
    board.changed(event(DELETED, "b"))
    assert names(board) == []


def test_a_part_of_name_or_phase_filters() -> None:
    board = Board()
    board.changed(event(ADDED, "report"))
    board.changed(event(ADDED, "build", "FAILED"))
    assert names(board, wanted="REP") == ["report"]
    assert names(board, wanted="fail") == ["build"]
