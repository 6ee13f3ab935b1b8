"""The client's configuration: where it is looked for, what it may say, and which node is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from joblet.config import ConfigError, NodeConfig, load_client_config

TEXT = """\
version: "3.0"
nodes:
  default: {address: "jobs.example.org:50051", cert: c, key: k, ca: a}
  here:
    address: unix:/run/joblet/joblet.sock
"""


def write(path: Path, text: str = TEXT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(0o600)
    path.write_text(text)
    return path


def refusal(tmp_path: Path, text: str) -> str:
    path = write(tmp_path / "rnx-config.yml", text)
    with pytest.raises(ConfigError) as refused:
        load_client_config(str(path), {})
    return str(refused.value).replace(str(path), "FILE")


def test_a_node_is_chosen_by_argument_then_variable_then_default(tmp_path: Path) -> None:
    path = str(write(tmp_path / "rnx-config.yml"))
    assert load_client_config(path, {}).node() == NodeConfig("default", "jobs.example.org:50051", "c", "k", "a")
    assert load_client_config(path, {"RNX_NODE": "here"}).node().address == "unix:/run/joblet/joblet.sock"
    assert load_client_config(path, {"RNX_NODE": "here"}).node("default").name == "default"


def test_an_unknown_node_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no node 'defualt' \(did you mean default\?\)"):
        load_client_config(str(write(tmp_path / "rnx-config.yml")), {}).node("defualt")


def test_the_search_path_is_gone_through_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    env = {"HOME": str(tmp_path / "home")}
    found = []
    for place in (tmp_path / "home/.rnx", tmp_path / "config", tmp_path):
        write(place / "rnx-config.yml")
        found.append(load_client_config(None, env).path)
    assert found == [f"{tmp_path}/home/.rnx/rnx-config.yml", "config/rnx-config.yml", "./rnx-config.yml"]


def test_the_variable_wins_over_the_search_path_and_the_flag_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "rnx-config.yml")
    by_variable, by_flag = (str(write(tmp_path / name / "c.yml")) for name in ("variable", "flag"))
    assert load_client_config(None, {"RNX_CONFIG": by_variable}).path == by_variable
    assert load_client_config(by_flag, {"RNX_CONFIG": by_variable}).path == by_flag


def test_a_file_that_was_named_and_is_not_there_is_not_replaced_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "rnx-config.yml")
    with pytest.raises(ConfigError, match="there is no such file"):
        load_client_config(None, {"RNX_CONFIG": "none.yml"})


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"3.0"', '"2.0"', "FILE:1:1: version: '2.0' is not known"),
        ('"3.0"', "3.0", 'FILE:1:1: version: 3.0 is not known (it must be "3.0", in quotes)'),
        ("cert: c", "crt: c", "FILE:3:48: nodes.default.crt: unknown key (did you mean cert?)"),
        ("cert: c,", "", "FILE:3:3: nodes.default.cert: is missing"),
        ("key: k", "key: 1", "FILE:3:57: nodes.default.key: must be text"),
        (":50051", "", "FILE:3:13: nodes.default.address: 'jobs.example.org' has no port"),
        ("    address: unix", "    adress: unix", "FILE:5:5: nodes.here.adress: unknown key (did you mean address?)"),
        ("  here:", "  default:", "FILE:4:3: the key 'default' stands here a second time"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert refusal(tmp_path, TEXT.replace(old, new)).startswith(said)


@pytest.mark.parametrize("text", ['version: "3.0"\n', 'version: "3.0"\nnodes: []\n', 'version: "3.0"\nnodes: {}\n'])
def test_a_file_without_nodes_is_refused(tmp_path: Path, text: str) -> None:
    assert "nodes: names no node" in refusal(tmp_path, text)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "rnx-config.yml")
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_client_config(str(path), {})


def test_a_key_never_shows_in_a_repr() -> None:
    assert "SECRET" not in repr(NodeConfig("n", "a:1", "c", "SECRET", "a"))
