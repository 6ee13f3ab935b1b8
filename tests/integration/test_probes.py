"""Probes of real services: from within their sandboxes, by each way, and a change that leaves no gap."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from joblet.api.v1 import job_pb2
from tests.integration.host import Host, eventually, job_host

SERVER = """
import http.server, os, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/up" and os.path.exists("/work/well") else 503)
        self.end_headers()
    def log_message(self, *_): pass
if os.environ.get("SLOW"):
    time.sleep(600)
open("/work/well", "w").close()
http.server.HTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
"""
SERVICE = """
apiVersion: joblet/v1
kind: Job
metadata: {{name: {name}}}
spec:
  command: [python3, server.py]
  env: {{{env}}}
  files:
    - path: server.py
      content: |
{server}
  restart: Always
  stop: {{grace: 1s}}
  probe: {{{probe}, interval: 200ms, timeout: 30s}}
  update: {{maxUnavailable: {unavailable}}}
"""


FOUR_ARE_SLOW = "echo >>/work/n; [ $(wc -l </work/n) -lt 5 ] || exit 3; exec sleep 600"


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host() as host:
        yield host


def service(name: str, probe: str, *, env: str = "A: b", unavailable: int = 1) -> str:
    server = "\n".join(f"        {line}" for line in SERVER.strip().splitlines())
    return SERVICE.format(name=name, probe=probe, env=env, unavailable=unavailable, server=server)


def ready(job: job_pb2.Job) -> tuple[str, str]:
    return next(((one.status, one.message) for one in job.conditions if one.type == "Ready"), ("", ""))


def waits_for(host: Host, name: str, status: str, text: str = "") -> None:
    def there() -> bool:
        found = ready(host.job(name))
        return found[0] == status and text in found[1]

    eventually(there, within=40, what=f"{name} to be {status} {text}: {ready(host.job(name))} {host.log_tail()}")


@pytest.mark.parametrize(
    ("name", "probe"),
    [
        ("by-tcp", "tcp: 8080"),
        ("by-http", "http: {port: 8080, path: /up}"),
        ("by-command", "command: [test, -e, /work/well]"),
    ],
)
def test_a_service_is_asked_in_its_own_namespaces(host: Host, name: str, probe: str) -> None:
    host.apply(service(name, probe))
    waits_for(host, name, "True", "serves")
    host.delete(name)


@pytest.mark.parametrize(
    ("name", "probe", "why"),
    [
        ("no-tcp", "tcp: 8081", "Connection refused"),
        ("no-http", "http: {port: 8080, path: /down}", "answered with status 503"),
        ("no-command", "command: [nosuchcommand]", "No such file or directory"),
        ("slow-command", f"command: [sh, -c, '{FOUR_ARE_SLOW}'], timeout: 300ms", "took longer than 0.3 s"),
    ],
)
def test_why_a_service_is_not_well_is_told(host: Host, name: str, probe: str, why: str) -> None:
    host.apply(service(name, probe).replace(", timeout: 30s", "" if "timeout" in probe else ", timeout: 30s"))
    waits_for(host, name, "False", why)
    if name == "slow-command":  # nothing of the slow ones stays in the job
        waits_for(host, name, "False", "exited with 3")
        eventually(lambda: host.run(name).attempts[0].usage.pids == 1, what="the service alone to be there")
    host.delete(name)


PRIVILEGES = """
apiVersion: joblet/v1
kind: Job
metadata: {name: confined}
spec:
  script: |
    echo $$ >/work/pid
    until [ -s /work/seen ]; do sleep 0.1; done
    cat /work/seen
    exec sleep 600
  isolation: {user: 1000}
  limits: {memory: 64Mi, pids: 20}
  restart: Always
  stop: {grace: 0s}
  probe:
    interval: 200ms
    timeout: 10s
    command:
      - sh
      - -c
      - |
        [ -s /work/pid ] || exit 1
        {
          command=$(cat /work/pid)
          grep -E '^(Cap(Eff|Prm|Bnd|Inh)|NoNewPrivs|Seccomp|Uid|Gid):' /proc/self/status
          for name in user net mnt pid ipc uts; do
            [ "$(readlink /proc/self/ns/$name)" = "$(readlink /proc/$command/ns/$name)" ] && echo "same $name"
          done
          cat /proc/self/cgroup /proc/$command/cgroup | sort | uniq -c | grep -vc '^ *2 ' | sed 's/^/other cgroups: /'
          env | sort
        } >/work/part.$$ 2>&1
        mv /work/part.$$ /work/seen
"""


def test_a_probe_s_command_has_no_more_rights_than_the_job_s(host: Host) -> None:
    host.apply(PRIVILEGES)
    waits_for(host, "confined", "True")
    eventually(lambda: b"USER=" in host.log("confined", follow=False), what="what a probe saw", within=30)
    seen = host.log("confined", follow=False).decode()
    for line in ("NoNewPrivs:\t1", "Seccomp:\t2", "Uid:\t1000\t1000\t1000\t1000", "other cgroups: 0"):
        assert line in seen, seen
    for name in ("CapEff", "CapPrm", "CapBnd", "CapInh"):
        assert f"{name}:\t0000000000000000" in seen, seen
    for name in ("user", "net", "mnt", "pid", "ipc", "uts"):
        assert f"same {name}\n" in seen, seen
    assert "JOBLET_JOB=confined" in seen
    host.delete("confined")


def test_a_change_leaves_no_gap_and_a_broken_one_leaves_what_serves(host: Host) -> None:
    probe = "http: {port: 8080, path: /up}"
    host.apply(service("web", probe, unavailable=0))
    waits_for(host, "web", "True")
    first = host.run("web").id
    host.apply(service("web", probe, unavailable=0, env="SLOW: 'yes'"))
    waits_for(host, "web", "True", "is not ready yet")
    runs = host.job("web", history=True).runs
    assert [(run.id == first, run.phase) for run in runs] == [(False, "RUNNING"), (True, "RUNNING")]
    host.apply(service("web", probe, unavailable=0, env="C: d"))
    eventually(
        lambda: [run.phase for run in host.job("web", history=True).runs] == ["RUNNING", "STOPPED", "STOPPED"],
        within=40,
        what="the new run alone to serve",
    )
    reasons = [line.split()[2] for line in host.rnx("events", "web").out.splitlines()]
    statuses = [reason for reason in reasons if reason in ("Ready", "NotReady")]
    # The first probe may have come late enough to find it well.
    assert statuses in (["NotReady", "Ready"], ["Ready"]), host.rnx("events", "web").out
    host.delete("web")
