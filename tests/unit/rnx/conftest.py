"""One listening service for the client's tests; fresh answers for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from rnx.main import run
from tests.unit.rnx.service import Answers, Running, serve


@dataclass(frozen=True)
class Said:
    """How a command line ended."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def out(self) -> str:
        return self.stdout.decode()

    @property
    def err(self) -> str:
        return self.stderr.decode()


Rnx = Callable[..., Said]


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve(tmp_path_factory.mktemp("rnx")) as running:
        running.config()
        yield running


@pytest.fixture
def answers(service: Running) -> Answers:
    """Fresh answers, in the place where the service looks."""
    for one in fields(Answers):
        setattr(service.answers, one.name, getattr(Answers(), one.name))
    return service.answers


@pytest.fixture
def rnx(service: Running, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Rnx:
    """Run a command line against the service, in this process."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("RNX_NODE", raising=False)

    def call(*arguments: str | Path, config: Path | None = None) -> Said:
        path = config or service.directory / "rnx-config.yml"
        code = run(["--config", str(path), *map(str, arguments)])
        return Said(code, *capfdbinary.readouterr())

    return call
