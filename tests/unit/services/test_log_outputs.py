"""Where the log's lines arrive: files that are rotated, the journal with fields, the audit log; and whom a line is about."""

from __future__ import annotations

import array
import asyncio
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from joblet.clock import SystemClock
from joblet.errors import JobletError
from jobletd.journal import Journal
from jobletd.log_outputs import LogFile, Outputs
from jobletd.logging_setup import open_log, set_up_logging
from jobletd.registry import Registry
from jobletd.saves import EventDraft
from jobletd.store import Store


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    set_up_logging(level="INFO", json_lines=False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logging.root.handlers[:], logging.root.level = handlers, level


class Journald:
    """Hears what journald would."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(10)
        self.socket.bind(self.path)

    def entry(self) -> dict[str, str]:
        data, ancillary, _, _ = self.socket.recvmsg(1 << 20, socket.CMSG_SPACE(4))
        if ancillary:
            fds = array.array("i", ancillary[0][2])
            data = os.pread(fds[0], 1 << 24, 0)
            os.close(fds[0])
        return fields(data)


def fields(data: bytes) -> dict[str, str]:
    found = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            length = int.from_bytes(data[:8], "little")
            value, data = data[8 : 8 + length], data[9 + length :]
        found[name.decode()] = value.decode()
    return found


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    heard = Journald(tmp_path / "journal")
    yield heard
    heard.socket.close()


def set_up(outputs: Outputs, *, json_lines: bool = False) -> None:
    set_up_logging(level="INFO", json_lines=json_lines, stream=outputs)


def test_a_line_reaches_the_journal_with_its_fields_and_no_date(journald: Journald, tmp_path: Path) -> None:
    set_up(Outputs(LogFile(str(tmp_path / "log")), journal=Journal(journald.path)))
    structlog.get_logger("tls").warning("connection refused", peer="192.0.2.7:1", reason="NO_CERTIFICATE", note="a\nb")
    assert journald.entry() == {
        "MESSAGE": "[warning  ] connection refused peer=192.0.2.7:1 reason=NO_CERTIFICATE note=a\\nb",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "joblet",
        "JOBLET_LOGGER": "tls",
        "JOBLET_EVENT": "connection refused",
        "JOBLET_PEER": "192.0.2.7:1",
        "JOBLET_REASON": "NO_CERTIFICATE",
        "JOBLET_NOTE": "a\\nb",
    }
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.startswith("20") and "[warning  ] connection refused peer=192.0.2.7:1" in line
    logging.getLogger("library").error("it broke")
    entry = journald.entry()
    assert (entry["MESSAGE"], entry["PRIORITY"], entry["JOBLET_LOGGER"]) == ("[error    ] it broke", "3", "library")


def test_a_line_with_a_traceback_or_of_great_length_reaches_the_journal(journald: Journald, tmp_path: Path) -> None:
    set_up(Outputs(LogFile(str(tmp_path / "log")), journal=Journal(journald.path)))
    try:
        raise ValueError("broken")
    except ValueError as error:
        structlog.get_logger("x").error("a part broke", exc_info=error)
    assert "\nValueError: broken" in journald.entry()["MESSAGE"]
    structlog.get_logger("x").error("long", text="x" * 2_000_000)
    assert len(journald.entry()["JOBLET_TEXT"]) == 2_000_000


def test_how_a_run_ended_is_in_the_journal_with_its_job(journald: Journald, tmp_path: Path) -> None:
    set_up(Outputs(LogFile(str(tmp_path / "log")), journal=Journal(journald.path)))
    store = Store.open(str(tmp_path / "joblet.db"))

    async def happen() -> None:
        registry = Registry(store, SystemClock())
        for reason in ("Created", "Started", "Retrying", "Retrying", "Completed"):
            kind = "Warning" if reason == "Retrying" else "Normal"
            await registry.record(EventDraft("nightly", "run00001", kind, reason, f"{reason}: so"))

    asyncio.run(happen())
    store.close()
    entries = [journald.entry() for _ in range(2)]
    assert [entry["JOBLET_EVENT"] for entry in entries] == ["Retrying", "Completed"]
    assert {(entry["JOBLET_JOB"], entry["JOBLET_RUN"]) for entry in entries} == {("nightly", "run00001")}
    assert (
        entries[0]["JOBLET_TYPE"] == "Warning" and entries[0]["PRIORITY"] == "6"
    )  # the job's trouble, not the daemon's
    assert len((tmp_path / "log").read_text().splitlines()) == 2


def test_where_standard_error_leads_to_the_journal_a_line_is_there_once(
    journald: Journald, capfd: pytest.CaptureFixture[str]
) -> None:
    found = os.fstat(2)
    assert open_log("stderr", None, f"{found.st_dev}:{found.st_ino}").journal is not None
    assert open_log("stderr", None, "1:1").journal is None, "the variable is another process's"
    outputs = open_log("stderr")
    set_up(Outputs(outputs.stream, journal=Journal(journald.path)))
    structlog.get_logger("x").info("said")
    assert journald.entry()["JOBLET_EVENT"] == "said"
    assert capfd.readouterr().err == ""
    os.unlink(journald.path)
    structlog.get_logger("x").info("said nevertheless")
    assert "said nevertheless" in capfd.readouterr().err


def test_a_line_about_an_attempt_names_run_and_job(tmp_path: Path) -> None:
    set_up(open_log(str(tmp_path / "log")))
    structlog.get_logger("x").info("ended", attempt="my-job-ab12cd34-2")
    with structlog.contextvars.bound_contextvars(job="other", source="spool:other.yml"):
        structlog.get_logger("x").info("seen")
    first, second = (tmp_path / "log").read_text().splitlines()
    assert first.endswith("ended attempt=my-job-ab12cd34-2 job=my-job run=ab12cd34")
    assert second.endswith("seen job=other source=spool:other.yml")


def test_audit_lines_have_a_file_of_their_own(tmp_path: Path) -> None:
    set_up(open_log(str(tmp_path / "log"), str(tmp_path / "audit")), json_lines=True)
    structlog.get_logger("audit").info("apply", client="admin")
    structlog.get_logger("x").info("other")
    assert len((tmp_path / "log").read_text().splitlines()) == 2
    (line,) = (tmp_path / "audit").read_text().splitlines()
    assert '"client": "admin"' in line
    with pytest.raises(JobletError, match=r"logging\.audit: .*cannot be opened"):
        open_log("stderr", str(tmp_path / "no/file"))


def test_a_file_that_was_moved_away_is_followed_by_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "log"
    set_up(open_log(str(path)))
    log = structlog.get_logger("x")
    for number in range(100):
        log.info("line", number=number)
        if number % 7 == 0:
            path.rename(tmp_path / f"log.{number}")
    found = "".join(file.read_text() for file in tmp_path.iterdir())
    assert sorted(int(line.rpartition("=")[2]) for line in found.splitlines()) == list(range(100))
    assert path.stat().st_mode & 0o777 == 0o640


def test_without_a_place_for_a_new_one_the_old_file_stays_the_log(tmp_path: Path) -> None:
    (directory := tmp_path / "logs").mkdir()
    set_up(open_log(str(directory / "log")))
    directory.rename(tmp_path / "away")
    structlog.get_logger("x").info("said")
    assert "said" in (tmp_path / "away/log").read_text()
