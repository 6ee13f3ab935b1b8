"""How the daemon ends: with which status, and what becomes of running jobs."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest

from joblet.config.server import ServerConfig, load_server_config
from jobletd.lifetime import Lifetime
from jobletd.notify import sd_notify
from jobletd.serve import Daemon
from jobletd.setup import Setup, make_root

Policy = Literal["stop", "keep"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ServerConfig:
    root = tmp_path_factory.mktemp("root") / "x"
    path, *_ = make_root(Setup(str(root), (), 0, "/sys/fs/cgroup/x/y"))
    return load_server_config(path, {})


class Bare(Daemon):
    """A daemon of one part, which does what the test wants."""

    async def part(self) -> None:
        raise NotImplementedError

    async def _start(self, life: Lifetime) -> None:
        self._control = SimpleNamespace(reconciler=SimpleNamespace(running=0))  # type: ignore[assignment]
        life.background("part", self.part())


def ended(daemon: Daemon) -> tuple[int, str]:
    async def bounded() -> int:
        async with asyncio.timeout(20):
            return await daemon.run()

    return asyncio.run(bounded()), daemon._shutdown_policy


def test_a_part_that_breaks_ends_the_daemon_with_1_and_no_job_pays_for_it(config: ServerConfig) -> None:
    class Breaks(Bare):
        async def part(self) -> None:
            raise RuntimeError("broken")

    assert config.server.on_shutdown == "stop"
    assert ended(Breaks(config, None, {})) == (1, "keep")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_daemon_that_is_told_to_end_ends_with_0_and_its_policy(config: ServerConfig, number: signal.Signals) -> None:
    class Told(Bare):
        async def part(self) -> None:
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()

    assert ended(Told(config, None, {})) == (0, "stop")


def test_a_hangup_during_the_start_ends_nothing(config: ServerConfig) -> None:
    class HungUp(Bare):
        async def part(self) -> None:
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0)
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()

    assert ended(HungUp(config, None, {})) == (0, "stop")


def test_without_systemd_nobody_is_notified_and_nothing_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    sd_notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    sd_notify("READY=1")
