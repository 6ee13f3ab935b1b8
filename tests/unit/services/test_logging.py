"""The daemon's log: one line an event, no secrets, the same form for what libraries say."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from joblet.errors import JobletError
from jobletd.logging_setup import open_log, set_up_logging


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers[:], logging.root.level = handlers, level


def fail() -> None:
    password = "SECRET"  # what a rich traceback would show
    raise ValueError("broken" + password[:0])


@pytest.mark.parametrize("json_lines", [False, True])
def test_a_traceback_shows_no_local_variables(json_lines: bool, capfd: pytest.CaptureFixture[str]) -> None:
    set_up_logging(level="INFO", json_lines=json_lines)
    try:
        fail()
    except ValueError as error:
        structlog.get_logger("x").error("a part broke", exc_info=error)
        logging.getLogger("library").error("so did I", exc_info=error)
    said = capfd.readouterr().err
    assert said.count("ValueError: broken") == 2
    assert "SECRET" not in said


def test_nobody_forges_a_line_with_a_name(capfd: pytest.CaptureFixture[str]) -> None:
    set_up_logging(level="INFO", json_lines=False)
    structlog.get_logger("x").warning("refused", client="a\n2026-01-01 [warning] refused peer=192.0.2.1\x1b[2J\u2028b")
    said = capfd.readouterr().err
    assert len(said.splitlines()) == 1
    assert "\\n2026" in said and "\x1b" not in said


def test_an_index_of_an_array_is_named_as_people_write_it(capfd: pytest.CaptureFixture[str]) -> None:
    set_up_logging(level="INFO", json_lines=True)
    log = structlog.get_logger("x")
    log.info("named", job="sweep.k3x9q2ab.7")
    with structlog.contextvars.bound_contextvars(job="sweep.k3x9q2ab.12"):
        log.info("bound")
    log.info("from an attempt", attempt="sweep.k3x9q2ab.3-abcd1234-1")
    log.info("a job", job="sweep")
    said = [json.loads(line)["job"] for line in capfd.readouterr().err.splitlines()]
    assert said == ["sweep.7", "sweep.12", "sweep.3", "sweep"]


def test_libraries_log_in_json_too(capfd: pytest.CaptureFixture[str]) -> None:
    set_up_logging(level="INFO", json_lines=True)
    logging.getLogger("library").warning("slow: %d", 3)
    logging.getLogger("library").info("chatter")
    structlog.get_logger("x").info("ready", address="127.0.0.1:1")
    first, second = map(json.loads, capfd.readouterr().err.splitlines())
    assert (first["event"], first["level"]) == ("slow: 3", "warning")
    assert (second["event"], second["address"]) == ("ready", "127.0.0.1:1")
    assert second["timestamp"].endswith("Z")


def test_what_is_below_the_level_is_not_written(capfd: pytest.CaptureFixture[str]) -> None:
    set_up_logging(level="ERROR", json_lines=False)
    structlog.get_logger("x").warning("unheard")
    assert capfd.readouterr().err == ""


def test_the_log_goes_where_the_configuration_says(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "joblet.log"
    for output in (str(path), "stdout", str(path), "stderr"):
        set_up_logging(level="INFO", json_lines=False, stream=open_log(output))
        structlog.get_logger("x").info("said", to=output)
        logging.getLogger("library").warning("so did I")
    lines = path.read_text().splitlines()
    assert len(lines) == 4 and "to=" in lines[0] and "so did I" in lines[3]
    assert path.stat().st_mode & 0o777 == 0o640
    said = capfd.readouterr()
    assert [text.count("said") for text in said] == [1, 1]


def test_a_line_that_the_file_does_not_take_is_not_lost(capfd: pytest.CaptureFixture[str]) -> None:
    set_up_logging(level="INFO", json_lines=False, stream=open_log("/dev/full"))
    structlog.get_logger("x").info("said")
    old = structlog.get_logger("x").bind()
    set_up_logging(level="INFO", json_lines=False, stream=open_log("stderr"))
    old.info("said by one who holds the closed file")
    assert capfd.readouterr().err.count("said") == 2


def test_a_log_that_cannot_be_opened_is_told_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(JobletError, match=r"logging\.output: .*cannot be opened: No such file"):
        open_log(f"{tmp_path}/no/file")
