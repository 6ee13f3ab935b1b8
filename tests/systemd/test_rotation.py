"""Certificates are rotated on the running unit while clients call."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

from tests.systemd.installed import ROOT, Installed, run


def test_a_rotation_under_a_stream_of_calls_fails_none_of_them(daemon: Installed, tmp_path: Path) -> None:
    before = daemon.main_pid
    kept = tmp_path / "rnx-config.yml"  # of a client elsewhere: it keeps its certificate
    shutil.copy(daemon.client_config(), kept)
    over, calls, failures = threading.Event(), [0, 0], list[str]()

    def call(number: int, config: Path) -> None:
        while not (over.is_set() and calls[number]):
            ended = run(ROOT / "bin/rnx", "--config", config, "list", check=False)
            calls[number] += 1
            if ended.returncode:
                failures.append(ended.stderr)

    streams = [threading.Thread(target=call, args=pair) for pair in enumerate((daemon.client_config(), kept))]
    for stream in streams:
        stream.start()
    rotated = daemon.joblet("certs", "rotate", check=False)
    over.set()
    for stream in streams:
        stream.join()
    assert rotated.returncode == 0, rotated.stderr
    assert not failures
    assert min(calls) >= 2, calls
    assert daemon.main_pid == before
    assert daemon.client_config().read_text() != kept.read_text()
    for config in (daemon.client_config(), kept):
        run(ROOT / "bin/rnx", "--config", config, "list")
