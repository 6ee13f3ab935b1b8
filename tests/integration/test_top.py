"""``rnx top``: by textual's own pilot, and in a real terminal, on a real daemon."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, RichLog

from joblet.config import load_client_config
from rnx.daemon import Daemon
from rnx.top.app import TopApp
from tests.integration.host import BIN, PATIENCE, Host, eventually, job_host
from tests.integration.test_configuration import job

SPIN = "[sh, -c, 'echo spinning; while :; do :; done']"


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host() as host:
        host.apply(job("busy", SPIN, "limits: {cpu: 30%, memory: 64Mi}"))
        host.apply(job("idle"))
        host.apply(job("failing", "['false']"))
        host.running("busy")
        host.running("idle")
        host.finished("failing")
        yield host


def daemon_of(host: Host, role: str = "admin") -> Daemon:
    return Daemon(load_client_config(str(host.client_config(role)), {}).node(None))


def shown(app: TopApp) -> list[list[str]]:
    table = app.query_one("#jobs", DataTable)
    return [[str(cell) for cell in table.get_row_at(row)] for row in range(table.row_count)]


async def choose(app: TopApp, pilot: Pilot[None], name: str) -> None:
    """Put the cursor on that job, wherever a redraw has moved it."""

    def chosen() -> bool:
        table = app.query_one("#jobs", DataTable)
        names = [row[0] for row in shown(app)]
        if name in names:
            table.move_cursor(row=names.index(name))
        return name in names and table.cursor_row == names.index(name)

    await until(pilot, chosen)


async def until(pilot: Pilot[None], look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30 * PATIENCE
    while not look():
        assert time.monotonic() < deadline, shown(pilot.app)  # type: ignore[arg-type]
        await pilot.pause(0.05)


def played(host: Host, play: Callable[[TopApp, Pilot[None]], object], role: str = "admin") -> None:
    async def run() -> None:
        app = TopApp(daemon_of(host, role), interval_ms=500, may_change=role == "admin")
        async with app.run_test(size=(160, 40)) as pilot:
            await until(pilot, lambda: len(shown(app)) >= 3 and shown(app)[0][2] != "")
            await play(app, pilot)  # type: ignore[misc]

    asyncio.run(run())


def test_jobs_are_sorted_filtered_and_measured(host: Host) -> None:
    async def play(app: TopApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: shown(app)[0][0] == "busy" and len(shown(app)[0][3]) >= 2)
        row = shown(app)[0]
        assert row[1] == "RUNNING" and row[5].endswith("%") and int(row[10]) >= 1
        assert re.fullmatch(r"-|\d+/\d+/\d+", row[9])  # pressure, where the kernel tells of it
        await pilot.press("n")
        await until(pilot, lambda: [one[0] for one in shown(app)] == ["busy", "failing", "idle"])
        assert next(one for one in shown(app) if one[0] == "failing")[1] == "FAILED ExitCode"
        await pilot.press("slash", *"idl")
        await until(pilot, lambda: [one[0] for one in shown(app)] == ["idle"])
        await pilot.press("enter", "escape", "u")
        await until(pilot, lambda: {one[0] for one in shown(app)} == {"busy", "idle"})

    played(host, play)


def test_the_log_of_what_is_chosen_is_followed(host: Host) -> None:
    async def play(app: TopApp, pilot: Pilot[None]) -> None:
        await choose(app, pilot, "busy")
        await pilot.press("l")
        log = app.query_one("#log", RichLog)
        await until(pilot, lambda: any("spinning" in line.text for line in log.lines))
        await pilot.press("escape")
        await until(pilot, lambda: not app.query_one("#pane").has_class("shown"))

    played(host, play)


def test_an_admin_stops_and_runs_again_after_a_question(host: Host) -> None:
    host.apply(job("aa-short", "[sleep, '600']"))
    host.running("aa-short")

    async def play(app: TopApp, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: len(shown(app)) == 4)
        await pilot.press("n")
        await until(pilot, lambda: shown(app)[0][0] == "aa-short")
        await choose(app, pilot, "aa-short")
        await pilot.press("s", "n")
        await pilot.pause()
        assert host.run("aa-short").phase == "RUNNING"
        await choose(app, pilot, "aa-short")
        await pilot.press("s", "y")
        await until(pilot, lambda: shown(app)[0][1].startswith("STOPPED"))
        await choose(app, pilot, "aa-short")
        await pilot.press("r")
        await until(pilot, lambda: shown(app)[0][1] == "RUNNING")

    played(host, play)
    host.rnx("delete", "aa-short")


def test_a_viewer_is_not_offered_what_changes_something(host: Host) -> None:
    async def play(app: TopApp, pilot: Pilot[None]) -> None:
        await pilot.press("n", "s", "y", "r")
        await pilot.pause()
        assert len(app.screen_stack) == 1

    played(host, play, "viewer")
    assert host.run("busy").phase == "RUNNING"


def test_it_needs_a_terminal(host: Host) -> None:
    refused = host.rnx("top")
    assert refused.status == 2 and "rnx monitor watch --json" in refused.err


def test_it_runs_in_a_real_terminal_and_leaves_it_as_it_was(host: Host, tmp_path: Path) -> None:
    tmux = ["tmux", "-S", str(tmp_path / "tmux"), "-f", "/dev/null"]
    command = shlex.join([str(BIN / "rnx"), "--config", str(host.client_config()), "top", "--interval", "500ms"])

    def screen() -> str:
        return subprocess.run([*tmux, "capture-pane", "-p"], check=True, capture_output=True, text=True).stdout

    environment = {**os.environ, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
    start = [*tmux, "new-session", "-d", "-x", "160", "-y", "40", "sh"]
    subprocess.run(start, check=True, env=environment, timeout=30 * PATIENCE)
    try:
        subprocess.run([*tmux, "send-keys", f"{command}; echo left with $?", "Enter"], check=True)
        eventually(lambda: "busy" in screen() and "RUNNING" in screen() and "memory" in screen(), within=30)
        subprocess.run([*tmux, "send-keys", "q"], check=True)
        eventually(lambda: "left with 0" in screen() and "RUNNING" not in screen(), within=30)
    finally:
        subprocess.run([*tmux, "kill-server"], check=False, timeout=30 * PATIENCE)
