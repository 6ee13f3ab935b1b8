"""What a job has around it on a node as on one host: secrets, uploads, probes, volumes. With a real daemon on a real cluster."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from joblet.api.v1 import job_pb2
from tests.canary import files_with
from tests.integration.host import Host, eventually
from tests.slurm.attempts import sweep
from tests.slurm.cluster import Cluster
from tests.slurm.joblet_host import slurm_host

CANARY = "hunter2-canary-77ab"
FORMS = tuple(base64.b64encode(b"." * shift + CANARY.encode() + b"..")[4:-4] for shift in range(3))
FORMS += (CANARY.encode(), CANARY.encode().hex().encode())
SECRET = f"""
apiVersion: joblet/v1
kind: Secret
metadata: {{name: db}}
spec: {{data: {{password: {CANARY}, user: reports}}}}
"""
USES = "secrets: [{name: db}, {name: db, key: password, env: PGPASSWORD}]\n  stop: {grace: 0s}"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(nodes=2, cpus=8) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def host(cluster: Cluster) -> Iterator[Host]:
    with slurm_host(cluster, isolation={"allowHostNetwork": True}) as host:
        host.apply(SECRET)
        yield host


def job(name: str, spec: str) -> str:
    return f"apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n  {spec}\n"


@contextmanager
def drained(cluster: Cluster, *names: str) -> Iterator[None]:
    """Nothing begins there meanwhile."""
    for name in names:
        cluster.slurm("scontrol", "update", f"nodename={name}", "state=drain", "reason=test")
    try:
        yield
    finally:
        for name in names:
            cluster.slurm("scontrol", "update", f"nodename={name}", "state=resume")


def attempt(host: Host, name: str) -> job_pb2.Attempt:
    """Its last one, once Slurm has it."""
    found = eventually(
        lambda: next((one for one in reversed(host.run(name).attempts) if one.engine_job), None),
        what=f"{name} in Slurm",
        within=40,
    )
    assert found is not None
    return found


def directory(cluster: Cluster, attempt_id: str) -> Path:
    return cluster.shared_path / "attempts" / attempt_id


OF_PROCESSES = """
for process in /proc/[0-9]*; do
    [ "$(readlink $process/ns/pid)" = "$(readlink /proc/1/ns/pid)" ] || continue
    tr '\\0' ' ' <$process/cmdline; tr '\\0' ' ' <$process/environ; echo
done 2>/dev/null
"""


def command_lines_and_environments(cluster: Cluster) -> str:
    """Of all processes of the nodes' hosts but those in the job's own pid namespace: Slurm's, and ours that watch the job."""
    found = "".join(cluster.run_on(node, ["sh", "-c", OF_PROCESSES], check=False).stdout for node in cluster.names)
    assert "slurmd" in found and "sandbox-exec" in found
    return found


def test_secrets_arrive_and_nothing_but_the_job_can_read_them(cluster: Cluster, host: Host) -> None:
    show = (
        "cd /run/secrets/db; stat -c '%a %U' password; sha256sum <password; echo $PGPASSWORD | tr -d '\\n' | sha256sum"
    )
    with drained(cluster, *cluster.names):
        host.apply(job("secret", f"script: {show}; sleep 600\n  {USES}"))
        waiting = attempt(host, "secret")
        sealed = directory(cluster, waiting.id) / "secrets"
        eventually(sealed.exists, what="sealed secrets")
        assert os.stat(sealed).st_mode & 0o777 == 0o600 and os.stat(sealed.parent).st_mode & 0o77 == 0
        state = [cluster.path_on(name, "/var/spool") for name in ("ctl", *cluster.names)]
        assert files_with(FORMS, cluster.shared_path, host.root / "state/slurm", *state) == []
    host.running("secret", within=60)
    digest = hashlib.sha256(CANARY.encode()).hexdigest()
    seen = eventually(
        lambda: host.log("secret", follow=False).count(digest.encode()) == 2, within=30, what="its output"
    )
    assert seen and b"400 root\n" in host.log("secret", follow=False)
    assert not sealed.exists()
    state = [cluster.path_on(name, path) for name in ("ctl", *cluster.names) for path in ("/var/spool", "/var/log")]
    nodes = [cluster.path_on(name, "/opt/joblet/state") for name in cluster.names]
    assert files_with(FORMS, cluster.shared_path, host.root / "state/slurm", *state, *nodes) == []
    told = cluster.slurm("scontrol", "show", "job", "-dd", waiting.engine_job)
    script = cluster.slurm("scontrol", "write", "batch_script", waiting.engine_job, "-")
    decoded = base64.b64decode("".join(re.findall(r"^[A-Za-z0-9+/=]+$", script, re.MULTILINE)))
    for text in (told.encode(), script.encode(), decoded, command_lines_and_environments(cluster).encode()):
        assert not any(form in text for form in FORMS)
    assert b"secrets_key" in decoded
    host.rnx("stop", "secret")
    assert host.finished("secret", within=60).phase == "STOPPED"


def test_a_daemon_that_is_killed_before_slurm_had_the_job_gives_the_secrets_of_its_restart(
    cluster: Cluster, host: Host
) -> None:
    """Values are in memory alone until they are sealed for the node: what was lost with the daemon is opened anew."""
    cluster.kill_slurmctld()
    try:
        host.apply(job("notices", "command: ['true']"))
        eventually(lambda: "slurm away" in host.rnx("nodes").out, within=60, what="Slurm to be away")
        host.apply(job("anew", f"script: sha256sum </run/secrets/db/password\n  {USES}"))
        waiting = host.watch_until("anew", lambda run: "Slurm" in run.message, within=60).attempts[-1]
        assert not (directory(cluster, waiting.id) / "secrets").exists()
        host.kill()
    finally:
        cluster.start_slurmctld()
    host.start()
    run = host.finished("anew", within=90)
    cluster.resume()
    assert (run.phase, [one.id for one in run.attempts]) == ("COMPLETED", [waiting.id])
    assert hashlib.sha256(CANARY.encode()).hexdigest().encode() in host.log("anew")


def test_an_upload_is_fetched_once_by_each_node_and_checked(cluster: Cluster, host: Host, tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    sha256 = hashlib.sha256(data).hexdigest()
    (tmp_path / "data.bin").write_bytes(data)
    (tmp_path / "job.yml").write_text(
        job(
            "upload", "command: [sha256sum, in/data]\n  files: [{path: in/data, from: ./data.bin}]\n  slurm: {node: n1}"
        )
    )
    applied = host.rnx("apply", "-f", tmp_path / "job.yml")
    assert applied.status == 0, applied.err
    assert host.finished("upload", within=60).phase == "COMPLETED"
    assert host.log("upload") == f"{sha256}  in/data\n".encode()
    on_node = cluster.path_on("n1", "/opt/joblet/state/slurm/contents") / sha256
    fetched = on_node.stat()
    assert (fetched.st_nlink, fetched.st_mode & 0o777, on_node.read_bytes()) == (1, 0o600, data)
    again = host.rnx("run", "--job", "upload", "--wait")
    assert again.out == f"{sha256}  in/data\n", again.err
    assert on_node.stat().st_ino == fetched.st_ino
    assert not (cluster.path_on("n2", "/opt/joblet/state/slurm/contents") / sha256).exists()


def test_an_upload_that_is_damaged_on_its_way_starts_nothing(cluster: Cluster, host: Host, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(b"as it was uploaded")
    manifest = tmp_path / "job.yml"
    manifest.write_text(job("damaged", "command: [cat, data]\n  files: [{path: data, from: ./data.bin}]"))
    sha256 = hashlib.sha256(b"as it was uploaded").hexdigest()
    with drained(cluster, *cluster.names):
        assert host.rnx("apply", "-f", manifest).status == 0
        content = directory(cluster, attempt(host, "damaged").id) / "contents" / sha256
        content.write_bytes(b"as it was tampered")
    run = host.finished("damaged", within=60)
    assert (run.phase, run.reason) == ("FAILED", "StartError") and sha256[:12] in run.message, run


def ready(host: Host, name: str) -> tuple[str, str]:
    return next(((one.status, one.message) for one in host.job(name).conditions if one.type == "Ready"), ("", ""))


def waits_for(host: Host, name: str, status: str, text: str = "") -> None:
    def there() -> bool:
        found = ready(host, name)
        return found[0] == status and text in found[1]

    eventually(there, within=60, what=f"{name} to be {status} {text}")


# The first attempt is well ten times, and then not any more.
SERVER = """
import http.server, os
ballast = b"x" * (int(os.environ.get("BALLAST", "0")) << 20)
count = 0
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global count
        count += 1
        self.send_response(503 if os.environ["JOBLET_ATTEMPT"] == "1" and count > 10 else 200)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
"""


def service(name: str, *, env: str = "A: b", probe: str = "http: {port: 8080, path: /}") -> str:
    content = "\n".join(f"        {line}" for line in SERVER.strip().splitlines())
    return job(
        name,
        f"""command: [python3, server.py]
  files:
    - path: server.py
      content: |
{content}
  env: {{{env}}}
  restart: Always
  retry: {{initial: 100ms}}
  stop: {{grace: 0s}}
  probe: {{{probe}, interval: 200ms, timeout: 9s, onFailure: Restart}}
  update: {{maxUnavailable: 0}}""",
    )


def test_a_service_is_ready_and_begins_anew_when_it_is_not_well_any_more(host: Host) -> None:
    host.apply(service("web"))
    waits_for(host, "web", "True", "serves")
    eventually(lambda: len(host.run("web").attempts) == 2, within=90, what="another attempt")
    assert host.run("web").attempts[0].reason == "Stopped"
    assert attempt(host, "web").engine == "slurm"
    waits_for(host, "web", "True", "serves")
    assert re.search("ProbeFailed.*answered with status 503", host.rnx("events", "web").out)
    host.rnx("delete", "web")


def test_probes_and_secrets_take_nothing_of_a_job_s_memory(cluster: Cluster, host: Host) -> None:
    """All that Joblet does on a node has to fit into what the allocation has above the job's limit."""
    text = service("full", env="BALLAST: '48'", probe="command: [test, -e, server.py]")
    host.apply(text.replace("restart:", "secrets: [{name: db}]\n  limits: {memory: 64Mi}\n  restart:"))
    waits_for(host, "full", "True", "serves")
    answers = directory(cluster, attempt(host, "full").id) / "probe.json"
    eventually(lambda: json.loads(answers.read_text())["count"] > 20, within=60, what="20 probes")
    assert len(host.run("full").attempts) == 1 and ready(host, "full")[0] == "True"
    host.rnx("delete", "full")


def test_a_change_leaves_no_gap_there_either(host: Host) -> None:
    probe = "tcp: 8080"
    host.apply(service("tcp", probe=probe))
    waits_for(host, "tcp", "True", "serves")
    first = host.run("tcp").id
    host.apply(service("tcp", probe=probe, env="B: c"))
    eventually(
        lambda: [run.phase for run in host.job("tcp", history=True).runs] == ["RUNNING", "STOPPED"],
        within=90,
        what="the new run alone to serve",
    )
    assert host.run("tcp").id != first
    reasons = [line.split()[2] for line in host.rnx("events", "tcp").out.splitlines()]
    assert [reason for reason in reasons if reason in ("Ready", "NotReady")] == ["NotReady", "Ready"]
    host.rnx("delete", "tcp")


VOLUME = """
apiVersion: joblet/v1
kind: Volume
metadata: {{name: {name}}}
spec: {{size: {size}}}
"""


def described(host: Host, name: str) -> str:
    """A volume as people see it."""
    return host.rnx("get", f"volume/{name}").out


def uses(name: str, spec: str, *, volume: str = "data", node: str = "n1") -> str:
    return job(
        name, f"{spec}\n  volumes: [{{name: {volume}, path: /data}}]\n  slurm: {{node: {node}}}\n  stop: {{grace: 0s}}"
    )


def completed(host: Host, name: str) -> bytes:
    run = host.finished(name, within=90)
    assert run.phase == "COMPLETED", (run, host.log_tail())
    return host.log(name)


def test_a_volume_is_the_same_on_whichever_node(cluster: Cluster, host: Host) -> None:
    host.apply(VOLUME.format(name="data", size="8Mi"))
    host.apply(
        uses("writes", "script: echo kept >/data/a; head -c 20M /dev/zero >/data/big || rm /data/big; id -u >/data/id")
    )
    completed(host, "writes")
    host.apply(uses("reads", "script: cat /data/a /data/id; stat -c %u /data/a", node="n2"))
    assert completed(host, "reads") == b"kept\n0\n0\n"
    assert not (cluster.shared_path / "volumes/data/attached").exists()
    host.apply(VOLUME.format(name="data", size="16Mi"))
    eventually(lambda: "16Mi" in described(host, "data") and "ready" in described(host, "data").lower(), within=40)
    host.apply(uses("more", "script: head -c 12M /dev/zero >/data/big; cat /data/a"))
    assert completed(host, "more") == b"kept\n"


def test_one_attempt_at_a_time_has_a_volume(cluster: Cluster, host: Host) -> None:
    host.apply(VOLUME.format(name="one", size="4Mi"))
    host.apply(uses("first", "script: echo in >/data/in; sleep 600", volume="one"))
    host.running("first", within=60)
    host.apply(uses("second", "script: cat /data/in", volume="one", node="n2"))
    waiting = host.watch_until("second", lambda run: "volume one" in run.message, within=40)
    assert waiting.phase == "INITIALIZING" and host.run("first").attempts[-1].id in waiting.message
    assert "on n1" in described(host, "one")
    host.rnx("stop", "first")
    assert completed(host, "second") == b"in\n"
    refused = host.rnx("delete", "volume/one")
    assert refused.status == 0, refused.err
    eventually(lambda: not (cluster.shared_path / "volumes/one").exists(), what="the volume to be gone")


def test_a_lost_node_keeps_its_volume_until_it_has_cleared_away(cluster: Cluster, host: Host) -> None:
    """Whether it still writes nobody else can know: so the next attempt waits, and says for whom and what to do."""
    host.apply(VOLUME.format(name="safe", size="8Mi"))
    host.apply(uses("holds", "script: echo a >/data/a; sync; echo ready; sleep 600", volume="safe", node="n2"))
    host.running("holds", within=60)
    eventually(lambda: b"ready" in host.log("holds", follow=False), within=30)
    cluster.kill("n2")
    try:
        assert host.finished("holds", within=180).reason == "NodeLost"
        host.apply(uses("next", "script: cat /data/a", volume="safe", node="n1"))
        waiting = host.watch_until("next", lambda run: "volume safe" in run.message, within=40)
        assert "on n2" in waiting.message and "sandbox-exec --sweep on n2" in waiting.message
    finally:
        cluster.start("n2")
    sweep(cluster, "n2")
    assert completed(host, "next") == b"a\n"


def test_the_networks_that_a_node_has_are_there(cluster: Cluster, host: Host) -> None:
    show = "command: [sed, -n, 's/^ *\\([a-z0-9]*\\):.*/\\1/p', /proc/net/dev]\n  slurm: {node: n1}"
    for network, interfaces in (("none", ["lo"]), ("host", ["eth0", "lo"])):
        host.apply(job(network, f"{show}\n  isolation: {{network: {network}}}"))
        assert sorted(completed(host, network).decode().split()) == interfaces


def test_what_the_cluster_cannot_give_says_why_and_what_to_do(host: Host) -> None:
    memory = VOLUME.format(name="fast", size="1Mi, type: memory")
    for manifest, path, way in (
        (memory, "spec.type", "type: filesystem"),
        (job("net", "command: ['true']\n  isolation: {network: bridge}"), "spec.isolation.network", "none or host"),
        (
            service("both").replace("update:", "volumes: [{name: data, path: /data}]\n  update:"),
            "spec.update.maxUnavailable",
            "use 1",
        ),
    ):
        refused = host.rnx("apply", "-f", "-", stdin=manifest)
        assert refused.status != 0 and path in refused.err and way in refused.err, refused.err
    host.apply(VOLUME.format(name="here", size="1Mi, executor: local"))
    host.apply(uses("strays", "command: ['true']", volume="here"))
    run = host.finished("strays", within=60)
    assert (run.reason, "executor: slurm" in run.message) == ("StartError", True)
