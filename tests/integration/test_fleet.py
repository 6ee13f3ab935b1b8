"""Three real daemons, each in a network namespace of its own, one client in another: one repository describes all of them."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute
from ruamel.yaml import YAML

from tests.git_repository import Repository, job
from tests.integration.host import BIN, Ended, Host, eventually, job_host
from tests.integration.network_stage import Namespace
from tests.timing import PATIENCE

pytestmark = pytest.mark.native_only(
    reason="three daemons and their client; what is asked of each is tested there alone"
)
ROLES = {"web1": "web", "web2": "web", "db": "db"}
SECRET = "known to the hoster and to us"
EXAMPLE = Path(__file__).parents[2] / "examples/fleet"


@dataclass
class Node:
    """One daemon: its network, and the address by which the client reaches it."""

    host: Host
    network: Namespace
    address: str

    @property
    def port(self) -> str:
        return (self.host.root / "run/port").read_text().strip()


@dataclass
class Fleet:
    """All nodes, the repository that they follow, and the client's place."""

    nodes: dict[str, Node]
    repository: Repository
    client: Namespace
    config: Path

    def rnx(self, *arguments: str | Path, config: Path | None = None) -> Ended:
        command = [
            "nsenter",
            f"--net={self.client.path}",
            "--",
            BIN / "rnx",
            "--config",
            config or self.config,
            *arguments,
        ]
        ended = subprocess.run(list(map(str, command)), capture_output=True, timeout=60 * PATIENCE, check=False)
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def told(self, *arguments: str | Path) -> str:
        said = self.rnx(*arguments)
        assert said.status == 0, (said.out, said.err)
        return said.out

    def write_config(self) -> None:
        """As a person would write it: the node of each host's own file, all in one."""
        yaml = YAML(typ="safe")
        found = {}
        for name, node in self.nodes.items():
            one = yaml.load(node.host.client_config().read_text())["nodes"]["default"]
            found[name] = {**one, "address": f"{node.address}:{node.port}"}
        self.config.touch(0o600)
        with self.config.open("w") as stream:
            yaml.dump({"version": "3.0", "nodes": found}, stream)


def source(role: str, url: str) -> str:
    text = (EXAMPLE / f"sources/{role}.yml").read_text()
    assert "https://git.example.org/team/fleet.git" in text and "interval: 1m" in text
    return text.replace("https://git.example.org/team/fleet.git", url).replace("interval: 1m", "interval: 1h")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    directory = tmp_path_factory.mktemp("fleet")
    repository = Repository(directory / "clone")
    sources = {f"sources/{role}.yml": source(role, repository.url) for role in ("web", "db")}
    repository.commit({**sources, "roles/web/none": "", "roles/db/none": ""})
    with ExitStack() as stack:
        client = stack.enter_context(namespace())
        nodes = {}
        for number, (name, role) in enumerate(ROLES.items()):
            network = stack.enter_context(namespace())
            address = connect(client, network, number)
            nodes[name] = Node(stack.enter_context(node(network, address, role, repository.url)), network, address)
        there = Fleet(nodes, repository, client, directory / "rnx-config.yml")
        there.write_config()
        yield there


@contextmanager
def namespace() -> Iterator[Namespace]:
    made = Namespace.make()
    try:
        yield made
    finally:
        made.end()


def connect(client: Namespace, network: Namespace, number: int) -> str:
    """A cable from the client to a node. Returns the node's address."""
    name, ours, theirs = f"node{number}", f"192.0.2.{4 * number + 1}", f"192.0.2.{4 * number + 2}"

    def lay() -> None:
        with IPRoute() as route:
            route.link("add", ifname=name, kind="veth", peer={"ifname": "up0", "net_ns_pid": network.holder.pid})
            index = socket.if_nametoindex(name)
            route.addr("add", index=index, address=ours, prefixlen=30)
            route.link("set", index=index, state="up")

    def plug_in() -> None:
        with IPRoute() as route:
            index = socket.if_nametoindex("up0")
            route.addr("add", index=index, address=theirs, prefixlen=30)
            for one in (1, index):
                route.link("set", index=one, state="up")

    client.call(lay)
    network.call(plug_in)
    return theirs


@contextmanager
def node(network: Namespace, address: str, role: str, url: str) -> Iterator[Host]:
    def configure(config: dict[str, Any]) -> None:
        config["node"] = {"labels": {"role": role, "site": "test"}}
        config["gitops"] = {"sources": {"fleet": {"url": url, "path": "sources", "interval": "1h"}}}
        config["webhook"] = {"enabled": True, "port": 0, "secret": SECRET}

    within = ("nsenter", f"--net={network.path}", "--")
    with job_host(address, within=within, configure=configure) as host:
        yield host


def table(text: str, *columns: str) -> list[tuple[str, ...]]:
    """These columns of a table, as far as they stand before any that may hold spaces."""
    header, *rows = [line.split() for line in text.splitlines()]
    return [tuple(row[header.index(column)] for column in columns) for row in rows]


def rows(fleet: Fleet, *columns: str) -> set[tuple[str, ...]]:
    return set(table(fleet.told("get", "jobs", "--all-nodes"), *columns))


def test_one_repository_and_one_client_for_all_of_them(fleet: Fleet) -> None:
    """Each host takes what its labels say; a sync, a list, a log and a stopped daemon are seen with their nodes."""
    files = ("roles/web/web.yml", "roles/web/site/page.txt", "roles/db/db.yml")
    fleet.repository.commit({file: (EXAMPLE / file).read_text() for file in files})
    for name in ("fleet", "web", "db"):
        fleet.told("sync", name, "--all-nodes")
    eventually(
        lambda: (
            rows(fleet, "NODE", "NAME", "STATUS")
            == {("web1", "web", "RUNNING"), ("web2", "web", "RUNNING"), ("db", "db", "RUNNING")}
        ),
        what="each has what its role says",
    )
    selected = {
        (one["node"], one["metadata"]["name"]): one["status"].get("selected", "")
        for one in json.loads(fleet.told("get", "gitsources", "--all-nodes", "-o", "json"))
    }
    assert selected["db", "web"] == selected["web1", "db"] == "no"
    assert selected["db", "db"] == selected["web1", "web"] == selected["web2", "fleet"] == ""
    assert fleet.told("get", "gitsource/fleet", "--node", "db,web1").splitlines()[1].split()[:3] == [
        "db",
        "fleet",
        "True",
    ]
    (shown,) = [line for line in fleet.told("nodes", "-o", "wide").splitlines() if line.startswith("db ")]
    assert " role=db,site=test " in shown

    eventually(
        lambda: (
            sorted(fleet.told("log", "web", "--all-nodes").splitlines())
            == [f"web{number}  the same page on every web host" for number in (1, 2)]
        ),
        what="both have written",
    )
    assert table(fleet.told("status", "db", "--all-nodes"), "NODE", "NAME") == [("db", "db")]
    assert {node for (node,) in table(fleet.told("events", "web", "--all-nodes"), "NODE")} == {"web1", "web2"}

    stopped = fleet.nodes["web2"].host
    stopped.kill()
    said = fleet.rnx("list", "--all-nodes")
    assert said.status == 4 and said.err.startswith("rnx: web2: 192.0.2.6:"), said
    assert set(table(said.out, "NODE", "NAME")) == {("web1", "web"), ("db", "db")}
    stopped.start()
    fleet.write_config()
    assert ("web2", "web", "RUNNING") in rows(fleet, "NODE", "NAME", "STATUS"), "it went on meanwhile"


def test_an_apply_to_several_nodes_is_waited_for_on_each(fleet: Fleet, tmp_path: Path) -> None:
    manifest = tmp_path / "greet.yml"
    manifest.write_text(job("greet", "[sh, -c, 'cat data; exit $(($(cat data)))']").replace(
        "stop:", "files: [{path: data, from: data}], stop:"
    ))  # fmt: skip
    (tmp_path / "data").write_text("0")
    out = fleet.told("apply", "-f", manifest, "--node", "web1,db", "--wait")
    assert table("\n".join(out.splitlines()[:3]), "NODE", "NAME", "ACTION") == [
        (name, "job/greet", "created") for name in ("web1", "db")
    ]
    assert out.splitlines()[3:] == ["web1  job/greet COMPLETED (Completed)", "db  job/greet COMPLETED (Completed)"]
    (tmp_path / "data").write_text("7")
    assert fleet.rnx("apply", "-f", manifest, "--all-nodes", "--wait").status == 7
    said = fleet.rnx("wait", "greet", "--all-nodes")
    assert said.status == 1 and len(said.out.splitlines()) == 3
    web = tmp_path / "web.yml"
    web.write_text(job("web", "[sleep, '1']"))
    said = fleet.rnx("apply", "-f", web, "--all-nodes", "--dry-run", "-o", "name")
    assert said.status == 6 and said.out == "db/job/web\n", "two nodes have it from the repository"
    assert said.err.count("belongs to git:web@") == 2
    fleet.told("delete", "greet", "--all-nodes")


def test_a_push_is_told_by_webhook_and_followed_at_once(fleet: Fleet) -> None:
    there = fleet.nodes["web1"]
    fleet.repository.commit({"roles/web/more.yml": job("more")})
    assert push(there, "web", "a wrong secret") == 401
    assert push(there, "nothing", SECRET) == 404
    assert push(there, "web", SECRET) == 202
    eventually(lambda: ("web1", "more") in rows(fleet, "NODE", "NAME"), what="the host whose hoster has told")
    assert ("web2", "more") not in rows(fleet, "NODE", "NAME")
    log = there.host.daemon_log.read_text()
    assert "WRONG_SECRET" in log and SECRET not in log
    assert SECRET not in subprocess.run(
        [BIN / "joblet", "config", "show", "--config", there.host.config], capture_output=True, text=True, check=True
    ).stdout  # fmt: skip


def push(node: Node, source: str, secret: str) -> int:
    """As GitHub tells of it, through a proxy on the host."""
    port = int((node.host.root / "run/webhook-port").read_text())
    body = json.dumps({"ref": "refs/heads/main"}).encode()
    signed = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()

    def post() -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20 * PATIENCE)
        try:
            connection.request("POST", f"/gitsources/{source}", body, {"X-Hub-Signature-256": f"sha256={signed}"})
            return connection.getresponse().status
        finally:
            connection.close()

    return node.network.call(post)


def test_the_configuration_declares_labels_and_sources_and_a_reload_changes_them(fleet: Fleet) -> None:
    there = fleet.nodes["db"]
    said = there.host.rnx("get", "gitsource/fleet", "-o", "json")
    assert json.loads(said.out)["status"]["source"] == "config:gitops.sources", said.err
    with pytest.raises(Exception, match="belongs to config:gitops"):
        there.host.apply(source("web", fleet.repository.url).replace("name: web", "name: fleet"))

    def relabel(config: dict[str, Any]) -> None:
        config["node"]["labels"]["role"] = "web"
        config["gitops"]["sources"]["fleet"]["interval"] = "2h"

    reload(there.host, relabel)
    eventually(
        lambda: ready(there.host) == {"db": "True", "fleet": "True", "web": "True"}, what="all have looked again"
    )
    eventually(lambda: ("db", "web") in rows(fleet, "NODE", "NAME"), what="it is a web server now")
    eventually(lambda: ("db", "db") not in rows(fleet, "NODE", "NAME"), what="and no database: one thing may always go")
    assert json.loads(there.host.rnx("get", "gitsource/fleet", "-o", "json").out)["spec"]["interval"] == "2h"
    reload(there.host, lambda config: config["gitops"].pop("sources"))
    eventually(lambda: ready(there.host) == {}, what="with the source goes what it declared")
    eventually(lambda: not [one for one in rows(fleet, "NODE", "NAME") if one[0] == "db"], what="down to the jobs")


def reload(host: Host, change: Any) -> None:
    host.configure(change)
    assert host.daemon is not None
    os.kill(host.daemon.pid, signal.SIGHUP)


def ready(host: Host) -> Mapping[str, str]:
    found = json.loads(host.rnx("get", "gitsources", "--json").out)
    return {
        one["metadata"]["name"]: one["status"]["conditions"][0]["status"] if one["status"]["conditions"] else ""
        for one in found
    }
