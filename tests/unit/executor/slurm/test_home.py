"""The copies of what nodes have: a log in its parts, claims that tell who has begun, debts that outlive a daemon."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from joblet.api.v1 import slurm_node_pb2
from joblet.sandbox.log_writer import LogWriter
from jobletd.executor.slurm import home
from jobletd.executor.slurm.home import Debt, LogCopy
from jobletd.executor.slurm.nodes import NodeAway, NodeDaemons
from jobletd.executor.slurm.records import free, read_claim, read_told, read_usage
from jobletd.log_reader import BlockReader, LogFiles, LogReader


def fetch(node: str, copy: LogCopy) -> None:
    """As a node's daemon and the executor do."""
    reader = BlockReader(f"{node}/log", *copy.position())
    while data := reader.read():
        copy.add(
            slurm_node_pb2.FetchAttemptLogResponse(
                part=reader.part, offset=reader.offset - len(data), data=data, oldest_part=reader.oldest()
            )
        )
    reader.close()


def output(directory: str) -> bytes:
    reader = LogReader(f"{directory}/log")
    read = b""
    while entries := reader.read():
        read += b"".join(entry.data for entry in entries)
    reader.close()
    return read


@pytest.fixture
def places(tmp_path: Path) -> tuple[str, str]:
    found = f"{tmp_path}/node", f"{tmp_path}/home"
    for path in found:
        os.mkdir(path)
    return found


def writer_in(node: str, limit_bytes: int) -> LogWriter:
    return LogWriter(os.open(node, os.O_RDONLY | os.O_DIRECTORY), "log", limit_bytes)


def write(writer: LogWriter, first: int, count: int) -> None:
    for number in range(first, first + count):
        writer.write("stdout", b"line %d of many, and of some length\n" % number)


def test_a_copy_that_goes_on_again_and_again_is_the_log_in_the_same_parts(places: tuple[str, str]) -> None:
    node, here = places
    writer = writer_in(node, 256 << 10)
    for number in range(0, 3000, 90):
        write(writer, number, 90)
        fetch(node, LogCopy(here))
    fetch(node, LogCopy(here))
    assert LogFiles(f"{here}/log").rotated() == LogFiles(f"{node}/log").rotated()
    assert len(LogFiles(f"{node}/log").rotated()) > 1
    assert output(here) == output(node) != b""


def test_what_was_rotated_away_before_it_came_is_left_out_and_nothing_else(places: tuple[str, str]) -> None:
    node, here = places
    writer = writer_in(node, 16 << 10)
    write(writer, 0, 10)
    fetch(node, LogCopy(here))
    write(writer, 10, 2000)
    assert LogFiles(f"{node}/log").rotated()[0] > 2
    fetch(node, LogCopy(here))
    assert output(here) == output(node)
    write(writer, 2010, 10)
    fetch(node, LogCopy(here))
    assert output(here) == output(node)
    assert LogFiles(f"{here}/log").size_bytes() == LogFiles(f"{node}/log").size_bytes()


def test_a_reader_here_follows_a_copy_across_its_parts(places: tuple[str, str]) -> None:
    node, here = places
    writer = writer_in(node, 256 << 10)
    reader = LogReader(f"{here}/log")
    read, written = b"", b""
    for number in range(3000):
        line = b"line %d of many, and of some length\n" % number
        writer.write("stdout", line)
        written += line
        if number % 50 == 0:
            fetch(node, LogCopy(here))
            while entries := reader.read():
                read += b"".join(entry.data for entry in entries)
    fetch(node, LogCopy(here))
    while entries := reader.read():
        read += b"".join(entry.data for entry in entries)
    reader.close()
    assert read == written


def test_a_claim_for_nobody_is_no_beginning_and_a_torn_one_is(tmp_path: Path) -> None:
    assert home.is_begun(b'{"node": "n1", "slurm_job_id": "7"}')
    assert not home.is_begun(b'{"node": null, "slurm_job_id": null, "by": "ctl"}')
    assert home.is_begun(b"") and home.is_begun(b'{"node": "n')
    home.store(str(tmp_path), "n1", slurm_node_pb2.NodeAttempt(attempt_id="a-b-1"), with_end=True)
    claim = read_claim(str(tmp_path))
    assert claim is not None and (claim.node, claim.job) == ("n1", "")


def test_an_end_is_stored_once_and_only_while_nobody_knows_it(tmp_path: Path) -> None:
    told = slurm_node_pb2.NodeAttempt(attempt_id="a-b-1", claim=b'{"node": "n1"}', state=b"{}", exit=b'{"version": 1}')
    home.store(str(tmp_path), "n1", told, with_end=False)
    assert read_told(str(tmp_path)).exit is None
    home.store(str(tmp_path), "n1", told, with_end=True)
    told.exit = b'{"version": 2}'
    home.store(str(tmp_path), "n1", told, with_end=True)
    assert read_told(str(tmp_path)).exit == {"version": 1}


def test_what_a_running_attempt_uses_is_the_last_note_and_written_once(tmp_path: Path) -> None:
    told = slurm_node_pb2.NodeAttempt(attempt_id="a-b-1", claim=b'{"node": "n1"}', usage=b'{"read_ns": 1}')
    home.store(str(tmp_path), "n1", told, with_end=True)
    file = os.stat(tmp_path / "usage.json").st_ino
    home.store(str(tmp_path), "n1", told, with_end=True)
    assert os.stat(tmp_path / "usage.json").st_ino == file
    told.usage = b'{"read_ns": 2}'
    home.store(str(tmp_path), "n1", told, with_end=True)
    assert read_usage(str(tmp_path)) == {"read_ns": 2}
    told.usage = b""  # it has ended there
    home.store(str(tmp_path), "n1", told, with_end=True)
    assert read_usage(str(tmp_path)) == {"read_ns": 2}


def test_a_debt_outlives_all_else_of_an_attempt_but_its_log(tmp_path: Path) -> None:
    Debt("n1", 7.0, has_output=True).write(str(tmp_path))
    (tmp_path / "exit.json").write_text("{}")
    free(str(tmp_path))
    assert Debt.read(str(tmp_path)) == Debt("n1", 7.0, has_output=True)
    (tmp_path / "debt.json").write_text('{"node"')
    assert Debt.read(str(tmp_path)) is None
    home.settled(str(tmp_path))
    home.settled(str(tmp_path))
    assert os.listdir(tmp_path) == []


CLIENT = """version: "3.0"
nodes:
  default: {address: "%s", cert: c, key: k, ca: a}
"""


def test_a_node_is_reached_as_its_own_file_says_or_where_slurm_finds_it(tmp_path: Path) -> None:
    for name, address in (("n1", "one.example:7"), ("default", "127.0.0.1:1"), ("n4", "unix:/run/joblet.sock")):
        (tmp_path / f"{name}.yml").write_text(CLIENT % address)
        (tmp_path / f"{name}.yml").chmod(0o600)
    daemons = NodeDaemons(str(tmp_path), 50051, 1.0)
    daemons.addresses = {"n2": "10.0.0.2", "n3": "fd00::3"}
    found = {name: daemons.config_of(name).address for name in ("n1", "n2", "n3", "n9", "../n1")}
    assert found == {
        "n1": "one.example:7",
        "n2": "10.0.0.2:50051",
        "n3": "[fd00::3]:50051",
        "n9": "n9:50051",
        "../n1": "../n1:50051",
    }
    assert daemons.named() == ["n1", "n4"]
    with pytest.raises(NodeAway, match="another host"):
        daemons.config_of("n4")
    (tmp_path / "n1.yml").chmod(0o644)
    with pytest.raises(NodeAway, match="chmod 600"):
        daemons.config_of("n1")
