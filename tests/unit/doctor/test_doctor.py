"""``joblet doctor``: table, JSON and exit status."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from jobletd.doctor import REQUIRED_IS_MISSING, run_doctor, show
from jobletd.feature import Feature
from jobletd.host_features import HostFeatures

GOOD = Feature("mounts", True, "works", required=True)
COMFORT = Feature("systemd", False, "pid 1 is sh", cost="no unit", mend="boot with systemd")
VITAL = Feature("clone3", False, "Function not implemented", True, "no job can run", "run Linux 5.11 or newer")


def shown(*features: Feature) -> str:
    host = HostFeatures("6.1", "x86_64", "v2", frozenset({"cpu"}), 1, 1 << 30, 0, features)
    out = io.StringIO()
    show(host, features, Console(file=out, width=100))
    return out.getvalue()


def test_the_json_names_every_feature_and_whether_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    status = run_doctor(json_output=True, config_path=None)
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] == (status == 0)
    assert {"kernel", "architecture", "cgroup_mode", "controllers", "cpus", "memory_bytes", "swap_bytes"} <= set(answer)
    assert set(answer["features"][0]) == {"name", "available", "detail", "required", "cost", "mend"}
    assert answer["features"][-1]["name"] == "configuration"


def test_a_configuration_that_cannot_be_used_is_the_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "joblet-config.yml"
    path.write_text("version: '2.0'\n")
    path.chmod(0o600)
    assert run_doctor(json_output=True, config_path=str(path)) == REQUIRED_IS_MISSING
    last = json.loads(capsys.readouterr().out)["features"][-1]
    assert (last["name"], last["available"], last["required"]) == ("configuration", False, True)
    assert str(path) in last["detail"]


def test_a_configuration_that_was_named_must_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_doctor(json_output=False, config_path=str(tmp_path / "none.yml")) == REQUIRED_IS_MISSING
    assert "jobs cannot run here: configuration missing" in capsys.readouterr().out


def test_what_is_missing_is_shown_with_cost_and_mend_what_is_required_first() -> None:
    text = shown(GOOD, COMFORT, VITAL)
    assert "costs: no job can run" in text
    assert "mend:  run Linux 5.11 or newer" in text
    assert text.index("clone3: Function") < text.index("systemd: pid 1")
    assert text.endswith("jobs cannot run here: clone3 missing\n")


def test_what_jobs_can_do_without_does_not_spoil_the_verdict() -> None:
    assert shown(GOOD, COMFORT).endswith(
        "jobs can run here (cgroup v2, Linux 6.1); 1 thing(s) missing that jobs can do without\n"
    )
    assert shown(GOOD).endswith("jobs can run here (cgroup v2, Linux 6.1)\n")


def test_nothing_found_on_the_host_is_taken_for_markup() -> None:
    assert "[red]x[/red]" in shown(Feature("mounts", True, "[red]x[/red]"))
