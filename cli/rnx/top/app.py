"""The screen of ``rnx top``, by textual."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from functools import partial
from typing import Any, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Input, Label, RichLog, Static

from joblet.api.v1 import job_pb2
from rnx.daemon import Daemon
from rnx.failures import ClientError
from rnx.output.bars import bars, fullness, share
from rnx.output.terminal import PHASE_STYLES, printable
from rnx.output.usage import job_pressure, pressure, rate
from rnx.output.words import duration, size
from rnx.top import streams
from rnx.top.board import HISTORY, Board, Order, Row

LEAST_FULL = 10.0  # percent of a core: what is next to nothing looks like it
COLUMNS = (
    "JOB",
    "PHASE",
    "CPU",
    "HISTORY",
    "MEMORY",
    "OF LIMIT",
    "READ/S",
    "WRITE/S",
    "HELD BACK",
    "PRESSURE",
    "PIDS",
    "AGE",
)


class Confirm(ModalScreen[bool]):
    """Asks before something ends."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape", "answer(False)", "No"),
    ]
    CSS = (
        "Confirm { align: center middle; } Confirm Label { padding: 1 3; border: round $warning; background: $panel; }"
    )

    def __init__(self, question: str) -> None:
        super().__init__()
        self._question = question

    def compose(self) -> ComposeResult:
        yield Label(f"{self._question}  (y/n)", markup=False)

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)


class TopApp(App[None]):
    """Jobs of one node. may_change: whether the certificate is an admin's; else what changes something is not offered."""

    TITLE = "rnx top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #node { height: auto; padding: 0 1; background: $panel; }
    #filter { display: none; }
    #filter.shown { display: block; }
    #pane { display: none; height: 40%; border-top: solid $accent; }
    #pane.shown { display: block; }
    #log { height: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("c", "order('cpu')", "CPU"),
        Binding("m", "order('memory')", "Memory"),
        Binding("i", "order('io')", "I/O"),
        Binding("a", "order('age')", "Age"),
        Binding("n", "order('name')", "Name"),
        Binding("u", "only_running", "Running"),
        Binding("slash", "filter", "Filter"),
        Binding("l", "log", "Log"),
        Binding("s", "stop", "Stop"),
        Binding("r", "retry", "Run again"),
        Binding("escape", "close", "Close", show=False),
    ]

    def __init__(self, daemon: Daemon, *, interval_ms: int, may_change: bool) -> None:
        super().__init__()
        self._daemon = daemon
        self._interval_ms = interval_ms
        self._may_change = may_change
        self._board = Board()
        self._order = Order.CPU
        self._wanted = ""
        self._only_running = False
        self._trouble = ""
        self._streams: list[streams.Stream] = []
        self._followed: streams.Stream | None = None
        self._stale = False

    # --- the screen ---------------------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        yield Static(id="node", markup=False)
        yield Input(placeholder="part of a name or phase", id="filter")
        yield DataTable(id="jobs", cursor_type="row", zebra_stripes=True)
        with Vertical(id="pane"):
            yield Label(id="log-title", markup=False)
            yield RichLog(id="log", max_lines=2_000, wrap=True)
        yield Footer()

    def on_mount(self) -> None:
        table = self._table
        for title in COLUMNS:
            table.add_column(title, key=title)
        table.focus()
        self.set_interval(0.2, self._refresh)  # many changes at once are drawn once
        jobs = streams.Stream(
            partial(streams.all_jobs, self._daemon),
            self._in_loop(self._board.changed),
            self._in_loop(self._told_trouble),
            begin=self._in_loop(self._board.begin),
        )
        usage = streams.Stream(
            partial(streams.usage, self._daemon, self._interval_ms),
            self._in_loop(self._board.measured),
            self._in_loop(self._told_trouble),
        )
        self._streams = [jobs.start(), usage.start()]

    def on_unmount(self) -> None:
        for stream in (*self._streams, self._followed):
            if stream is not None:
                stream.close()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """None greys a key out."""
        return (
            None if action in ("stop", "retry") and not self._may_change else super().check_action(action, parameters)
        )

    def _in_loop(self, take: Callable[..., None]) -> Callable[..., None]:
        """The same in the screen's own thread; the table is drawn soon after."""

        def called(*arguments: Any) -> None:
            take(*arguments)
            self._stale = True

        def passed(*arguments: Any) -> None:
            try:
                self.call_from_thread(called, *arguments)
            except (RuntimeError, CancelledError):  # the screen has gone, before it was asked or meanwhile
                return

        return passed

    def _told_trouble(self, text: str) -> None:
        self._trouble = text

    @property
    def _table(self) -> DataTable[Text]:
        return self.query_one("#jobs", DataTable)

    def _refresh(self) -> None:
        node = self.query("#node")
        if not (self._stale and node):  # nothing is new, or the screen is being taken down
            return
        self._stale = False
        node.first(Static).update(self._node_line())
        table, chosen = self._table, self._chosen()
        rows = self._board.rows(self._order, wanted=self._wanted, only_running=self._only_running)
        table.clear()
        for row in rows:
            table.add_row(*cells(row), key=row.name)
        names = [row.name for row in rows]
        if chosen in names:  # what is chosen stays chosen, wherever it moves
            table.move_cursor(row=names.index(chosen))

    def _node_line(self) -> Text:
        reading = self._board.reading
        text = Text()
        if self._trouble:
            text.append(f"{printable(self._trouble)}; asking again\n", style="bold red")
        if reading is not None:
            memory = share(reading.memory_used_bytes, reading.memory_bytes)
            text.append(
                f"CPU {fullness(reading.cpu_percent)} {reading.cpu_percent:5.1f}% of {reading.cpus}   "
                f"memory {fullness(memory)} {size(reading.memory_used_bytes)} of {size(reading.memory_bytes)}   "
                f"load {reading.load[0]:.2f}\n"
            )
            text.append(
                f"{reading.running_jobs} running, {reading.queued_jobs} waiting   "
                f"disks read {rate(reading.disk_read_rate)}, write {rate(reading.disk_write_rate)}   "
                f"network in {rate(reading.network_receive_rate)}, out {rate(reading.network_send_rate)}   "
                f"pressure {pressure(reading) or '-'}   by {self._order}"
            )
        return text

    # --- keys ---------------------------------------------------------------------------------------------------------

    def _chosen(self) -> str | None:
        table = self._table
        if not table.row_count:
            return None
        return table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value

    def action_order(self, order: str) -> None:
        self._order = Order(order)
        self._stale = True

    def action_only_running(self) -> None:
        self._only_running = not self._only_running
        self._stale = True

    def action_filter(self) -> None:
        entry = self.query_one("#filter", Input)
        entry.add_class("shown")
        entry.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._wanted = event.value.strip()
        self._stale = True

    def on_input_submitted(self) -> None:
        self._table.focus()

    def action_close(self) -> None:
        """The log first, then the filter."""
        pane, entry = self.query_one("#pane"), self.query_one("#filter", Input)
        if pane.has_class("shown"):
            pane.remove_class("shown")
            self._end_log()
        else:
            entry.value = ""
            entry.remove_class("shown")
        self._table.focus()

    def action_log(self) -> None:
        """The log of the chosen job's latest run, followed."""
        name = self._chosen()
        row = self._board.row(name) if name else None
        if row is None or not row.run_id:
            self.notify("it has no run, so no log", severity="warning")
            return
        self._end_log()
        self.query_one("#pane").add_class("shown")
        self.query_one("#log-title", Label).update(f"log of {row.name}, run {row.run_id} (escape closes it)")
        shown = self.query_one("#log", RichLog)
        shown.clear()
        self._followed = streams.Stream(
            partial(streams.log_of, self._daemon, row.run_id),
            self._in_loop(self._show_log),
            self._in_loop(self._told_trouble),
            again=False,
        ).start()

    def _show_log(self, batch: job_pb2.LogsResponse) -> None:
        found = self.query("#log")
        if not found:  # the screen is being taken down
            return
        shown = found.first(RichLog)
        for entry in batch.entries:
            style = "red" if entry.stream == "stderr" else ""
            shown.write(Text(printable(entry.data.decode(errors="replace").rstrip("\n")), style=style))

    def _end_log(self) -> None:
        if self._followed is not None:
            self._followed.close()
            self._followed = None

    def action_stop(self) -> None:
        name = self._chosen()
        if name is None:
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self._change(lambda: self._daemon.stop(name, force=False), f"stopping {name}")

        self.push_screen(Confirm(f"Stop {name}?"), answered)

    def action_retry(self) -> None:
        if name := self._chosen():
            self._change(lambda: self._daemon.trigger(name), f"{name} runs again")

    def _change(self, call: Callable[[], object], told: str) -> None:
        """Ask the daemon in a thread; say how it went."""

        def work() -> None:
            try:
                call()
            except ClientError as error:
                self.call_from_thread(self.notify, printable(str(error)), severity="error", markup=False)
            else:
                self.call_from_thread(self.notify, told, markup=False)

        self.run_worker(work, thread=True)


def cells(row: Row) -> list[Text]:
    """One line of the table."""
    use = row.use
    limit = row.memory_share
    held = use.throttled_percent if use is not None else 0.0
    phase = f"{row.phase} {row.reason}" if row.reason and row.phase in ("FAILED", "STOPPED", "PENDING") else row.phase
    return [
        Text(printable(row.name)),
        Text(phase, style=PHASE_STYLES.get(row.phase, "")),
        Text(f"{row.cpu:.1f}%" if use is not None else "", justify="right"),
        Text(bars(list(row.history), width=HISTORY, least_full=LEAST_FULL), style="cyan"),
        Text(size(row.memory) if use is not None else "", justify="right"),
        Text(
            f"{limit:.0f}%" if limit is not None else "", style="bold red" if (limit or 0) > 90 else "", justify="right"
        ),
        Text(rate(use.io_read_rate) if use is not None else "", justify="right"),
        Text(rate(use.io_write_rate) if use is not None else "", justify="right"),
        Text(f"{held:.0f}%" if held else "", style="yellow", justify="right"),
        Text(job_pressure(use) or "-" if use is not None else "", justify="right"),
        Text(str(use.usage.pids) if use is not None else "", justify="right"),
        Text(duration(row.started), justify="right"),
    ]
