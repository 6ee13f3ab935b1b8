"""What files said when they were last parsed: when that is believed, and when it is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from joblet.manifest import JobManifest
from jobletd.model import JobName
from jobletd.sources import known_contents
from jobletd.sources.known_contents import KnownContents
from jobletd.sources.spool_files import Loaded, Refused, read_content
from tests.unit.manifest.samples import manifest_text

TWO = "---\n".join(manifest_text("command: [x]", name) for name in ("a", "b")).encode()
SECRET = b"apiVersion: joblet/v1\nkind: Secret\nmetadata: {name: token}\nspec: {data: {key: hunter2}}\n"


class Earlier:
    """A daemon's memory, with the jobs that are on record, and how often anything was parsed."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.jobs: dict[JobName, JobManifest] = {}
        self.parsed: list[str] = []

        def counted(data: bytes, name: str) -> Loaded | Refused:
            self.parsed.append(name)
            return read_content(data, name)

        monkeypatch.setattr(known_contents, "read_content", counted)

    def start(self) -> KnownContents:
        self.parsed.clear()
        return KnownContents(str(self.path), self.jobs.get)

    def read(self, contents: KnownContents, data: bytes, name: str = "two.yml") -> Loaded:
        """As the spool does: what a good file says goes on record."""
        loaded = contents.read(data, name)
        assert isinstance(loaded, Loaded)
        self.jobs |= {JobName(m.metadata.name): m for m in loaded.manifests if isinstance(m, JobManifest)}
        return loaded


@pytest.fixture
def earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Earlier:
    return Earlier(tmp_path / "contents.json", monkeypatch)


def test_the_next_daemon_parses_nothing_that_is_the_same_and_knows_the_places_too(earlier: Earlier) -> None:
    contents = earlier.start()
    parsed = earlier.read(contents, TWO)
    contents.save(all_of_it=True)
    again = earlier.start().read(TWO, "two.yml")
    assert earlier.parsed == []
    assert again == parsed
    assert again.manifests[1] is earlier.jobs[JobName("b")]
    assert again.places["b"][0] > again.places["a"][0]


def changed_file(earlier: Earlier) -> bytes:
    return TWO.replace(b"[x]", b"[y]")


def job_on_record_is_another(earlier: Earlier) -> bytes:
    earlier.read(earlier.start(), TWO.replace(b"[x]", b"[y]"))
    return TWO


def job_is_gone(earlier: Earlier) -> bytes:
    del earlier.jobs[JobName("b")]
    return TWO


def other_rules(earlier: Earlier) -> bytes:
    kept = json.loads(earlier.path.read_text())
    earlier.path.write_text(json.dumps(kept | {"rules": "of another version"}))
    return TWO


def half_written(earlier: Earlier) -> bytes:
    earlier.path.write_bytes(earlier.path.read_bytes()[:-20])
    return TWO


def of_another_form(earlier: Earlier) -> bytes:
    kept = json.loads(earlier.path.read_text())
    earlier.path.write_text(json.dumps(kept | {"contents": {key: [["a"]] for key in kept["contents"]}}))
    return TWO


@pytest.mark.parametrize(
    "meanwhile", [changed_file, job_on_record_is_another, job_is_gone, other_rules, half_written, of_another_form]
)
def test_what_may_be_otherwise_by_now_is_parsed(earlier: Earlier, meanwhile: Callable[[Earlier], bytes]) -> None:
    contents = earlier.start()
    earlier.read(contents, TWO)
    contents.save(all_of_it=True)
    data = meanwhile(earlier)
    contents = earlier.start()
    assert contents.read(data, "two.yml") == read_content(data, "two.yml")
    assert earlier.parsed == ["two.yml"]


def test_of_a_file_with_a_secret_nothing_is_kept(earlier: Earlier) -> None:
    contents = earlier.start()
    earlier.read(contents, TWO)
    assert isinstance(contents.read(SECRET + b"---\n" + TWO.replace(b": a", b": c"), "secret.yml"), Loaded)
    contents.save(all_of_it=True)
    assert len(json.loads(earlier.path.read_text())["contents"]) == 1


def test_only_what_present_files_say_is_kept_and_only_root_can_read_it(earlier: Earlier) -> None:
    contents = earlier.start()
    for number in range(3):
        earlier.read(contents, manifest_text("command: [x]", f"job-{number}").encode(), f"{number}.yml")
    contents.forget("1.yml")
    contents.save(all_of_it=True)
    assert len(json.loads(earlier.path.read_text())["contents"]) == 2
    assert earlier.path.stat().st_mode & 0o777 == 0o600


def test_a_name_that_says_json_is_another_content(earlier: Earlier) -> None:
    contents = earlier.start()
    earlier.read(contents, TWO, "two.yml")
    assert isinstance(contents.read(TWO, "two.json"), Refused)


def test_a_disk_that_is_full_only_costs_the_next_start_its_time(earlier: Earlier) -> None:
    earlier.path.mkdir()
    contents = earlier.start()
    earlier.read(contents, TWO)
    contents.save(all_of_it=True)
    assert isinstance(earlier.start().read(TWO, "two.yml"), Loaded)
    assert earlier.parsed == ["two.yml"]
