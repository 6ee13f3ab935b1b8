"""Every manifest in examples/ is run, and ends as its own first lines say (``# expect: PHASE [Reason]``)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.integration.host import Host, job_host
from tests.integration.network_stage import stage

NETWORKS = sorted((Path(__file__).parents[2] / "examples").glob("network*.yml"))
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yml"))
# What these show is done above the executor: when which run begins.
ORDERED = {"array", "dependencies", "matrix", "priority", "retry", "schedule", "scheduled-workflow", "workflow"}


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host() as host:
        yield host


def test_there_is_an_example_for_each_feature() -> None:
    assert {path.stem for path in EXAMPLES} >= {
        *("hello", "limits", "timeout", "retry", "script", "files", "service", "big-output", "failing", "environment"),
        *("cpu-quota", "untrusted-python", "secrets", "volume", "network", "schedule"),
    }


@pytest.mark.parametrize(
    "path", [path for path in EXAMPLES if path not in NETWORKS and path.stem not in ORDERED], ids=lambda path: path.stem
)
def test_an_example_ends_as_it_says(host: Host, path: Path) -> None:
    ends_as_it_says(host, path)


@pytest.mark.native_only(reason="when which run begins is decided above the executor, whatever the kernel")
@pytest.mark.parametrize("path", [path for path in EXAMPLES if path.stem in ORDERED], ids=lambda path: path.stem)
def test_an_example_of_several_runs_ends_as_it_says(host: Host, path: Path) -> None:
    ends_as_it_says(host, path)


@pytest.mark.native_only(reason="the guest's kernel has no nf_tables")
@pytest.mark.parametrize("path", NETWORKS, ids=lambda path: path.stem)
def test_an_example_with_a_network_ends_as_it_says(path: Path) -> None:
    with stage() as place, job_host(within=place.within) as host:  # not in the network of whoever runs the tests
        ends_as_it_says(host, path)


def ends_as_it_says(host: Host, path: Path) -> None:
    text = path.read_text()
    expected = re.search(r"^# expect: (\S+) ?(\S*)$", text, flags=re.MULTILINE)
    assert expected, f"{path.name} does not say how it ends"
    phase, reason = expected.groups()
    documents = YAML(typ="safe").load_all(text)
    name = next(one["metadata"]["name"] for one in documents if one["kind"] == "Job")
    host.apply(text, filename=path.name)
    run = host.running(name) if phase == "RUNNING" else host.finished(name, within=90)
    assert run.phase == phase, (run, host.log(name, stream="", follow=False)[-2000:])
    assert not reason or run.reason == reason
