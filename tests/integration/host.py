"""A whole Joblet host in a throw-away directory, for the integration tests: real daemon, real client, real kernel."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any, TypeVar

import grpc
from ruamel.yaml import YAML

from joblet.api.v1 import job_pb2, job_pb2_grpc
from joblet.atomicfile import write_atomic
from joblet.sandbox import syscalls
from jobletd.setup import Setup, make_root

PATIENCE = float(os.environ.get("JOBLET_TEST_PATIENCE", "1"))
BIN = Path(sys.executable).parent
FINAL = ("COMPLETED", "FAILED", "STOPPED")
T = TypeVar("T")


def eventually(look: Callable[[], T], *, within: float = 20, what: str = "") -> T:
    """Look until the answer is true. within: seconds on a fast machine.

    Only for what another process does behind its public interface, where there is no event to wait on.
    """
    deadline = time.monotonic() + within * PATIENCE
    while True:
        if answer := look():
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within * PATIENCE:g} s: {what or look}; last answer: {answer!r}")
        time.sleep(0.02)


def change_yaml(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what is in a file, comments left as they are."""
    yaml = YAML()
    content = yaml.load(path.read_text())
    change(content)
    with path.open("w") as stream:
        yaml.dump(content, stream)


@dataclass
class Host:
    """One ``joblet serve`` on its own root directory, cgroup base and port."""

    root: Path
    daemon: subprocess.Popen[str] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    channels: dict[str, grpc.Channel] = field(default_factory=dict)
    within: tuple[str, ...] = ()  # what the daemon and the client are started by, to live in other namespaces

    @property
    def config(self) -> Path:
        return self.root / "config/joblet-config.yml"

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    @property
    def cgroup_base(self) -> str:
        return f"/sys/fs/cgroup/joblet-test-{self.root.name}.slice/joblet.service"

    def client_config(self, role: str = "admin") -> Path:
        return self.root / "config" / ("rnx-config.yml" if role == "admin" else f"rnx-config-{role}.yml")

    def prepare(self, *addresses: str, port: int = 0) -> None:
        """Make what ``joblet init`` makes, without the start of an interpreter, which takes seconds in the guest."""
        if "PYTHONPATH" in self.environment:  # another joblet is meant than the one that is imported here
            assert not addresses and not port
            self.init()
        else:
            make_root(Setup(str(self.root), addresses, port, self.cgroup_base))

    def init(self) -> None:
        subprocess.run(
            [BIN / "joblet", "init", "--root", self.root, "--port", "0", "--cgroup-base", self.cgroup_base],
            check=True,
            timeout=60 * PATIENCE,
            stdout=subprocess.DEVNULL,
            # Which joblet it is, and nothing of what its daemon is to suffer.
            env={**os.environ, **{key: value for key, value in self.environment.items() if key == "PYTHONPATH"}},
        )

    def configure(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the configuration file, before the start."""
        change_yaml(self.config, change)

    def start(self, *, within: float = 20) -> None:
        """Start the daemon and wait until it says that it is ready."""
        offset = self.spawn()

        def ready() -> bool:
            assert self.daemon is not None
            with self.daemon_log.open("rb") as stream:
                stream.seek(offset)
                text = stream.read().decode(errors="replace")
            if self.daemon.poll() is not None:
                raise AssertionError(f"the daemon ended with status {self.daemon.returncode}:\n{text}")
            return re.search(r"\bready +address=", text) is not None

        eventually(ready, within=within, what="the daemon's ready line")
        self.use_actual_port()

    @property
    def daemon_log(self) -> Path:
        return self.root / "daemon.log"

    def spawn(self) -> int:
        """Start the daemon, and wait for nothing. Returns where its output begins in its log."""
        self.forget_daemon()
        with self.daemon_log.open("a") as stream:
            offset = stream.tell()
            self.daemon = subprocess.Popen(
                [*self.within, BIN / "joblet", "serve", "--config", self.config],
                stdout=stream,
                stderr=stream,
                text=True,
                start_new_session=True,
                env={**os.environ, **self.environment},
            )
        return offset

    def use_actual_port(self) -> None:
        """Point the client configurations at the port that the kernel gave."""
        port = (self.root / "run/port").read_text().strip()
        yaml = YAML()
        for name in ("rnx-config.yml", "rnx-config-viewer.yml"):
            path = self.root / "config" / name
            content = yaml.load(path.read_text())
            node = content["nodes"]["default"]
            node["address"] = f"127.0.0.1:{port}"
            text = io.StringIO()
            yaml.dump(content, text)
            write_atomic(str(path), text.getvalue().encode(), durable=False)  # clients may read it meanwhile

    def stop(self) -> int:
        """End the daemon with SIGTERM. Returns its exit status."""
        assert self.daemon is not None
        os.kill(self.daemon_pid, signal.SIGTERM)
        status = self.daemon.wait(timeout=60 * PATIENCE)
        self.forget_daemon()
        return status

    def kill(self) -> None:
        """End the daemon as a crash would."""
        assert self.daemon is not None
        os.kill(self.daemon_pid, signal.SIGKILL)
        self.daemon.wait(timeout=10 * PATIENCE)
        self.forget_daemon()

    @property
    def daemon_pid(self) -> int:
        """Of the daemon itself; nsenter waits for it if that is in a pid namespace of its own, and ends as it does."""
        assert self.daemon is not None
        pid = self.daemon.pid
        if Path(f"/proc/{pid}/comm").read_text().strip() != "nsenter":
            return pid
        return int(eventually(Path(f"/proc/{pid}/task/{pid}/children").read_text).split()[0])

    def forget_daemon(self) -> None:
        self.daemon = None
        for channel in self.channels.values():
            channel.close()
        self.channels.clear()

    def client(self, role: str = "admin") -> job_pb2_grpc.JobServiceStub:
        """A stub over the daemon's real TLS port, with the certificate of that role; one channel a role and daemon."""
        if self.within:  # its port is in another network namespace, its socket is not
            self.channels.setdefault(role, grpc.insecure_channel(f"unix:{self.root}/run/joblet.sock"))
        elif role not in self.channels:
            node = YAML(typ="safe").load(self.client_config(role).read_text())["nodes"]["default"]
            credentials = grpc.ssl_channel_credentials(*(node[key].encode() for key in ("ca", "key", "cert")))
            self.channels[role] = grpc.secure_channel(node["address"], credentials)
        return job_pb2_grpc.JobServiceStub(self.channels[role])

    @property
    def jobs(self) -> job_pb2_grpc.JobServiceStub:
        return self.client()

    def apply(self, text: str, *, filename: str = "test.yml", dry_run: bool = False) -> list[job_pb2.ApplyResult]:
        """Apply manifests; the text may be indented as a whole."""
        request = job_pb2.ApplyRequest(manifest=dedent(text).encode(), filename=filename, dry_run=dry_run)
        return list(self.jobs.Apply(request, timeout=30 * PATIENCE).results)

    def job(self, ref: str, *, history: bool = False) -> job_pb2.Job:
        job: job_pb2.Job = self.jobs.Get(job_pb2.GetRequest(ref=ref, history=history), timeout=30 * PATIENCE)
        return job

    def run(self, ref: str) -> job_pb2.Run:
        """The run with that id, or the latest of that job."""
        runs = self.job(ref).runs
        assert runs, f"{ref} has no run\n{self.log_tail()}"
        return runs[0]

    def watch_until(self, name: str, done: Callable[[job_pb2.Run], bool], *, within: float = 30) -> job_pb2.Run:
        """Follow a job by Watch until its latest run is as wanted; fails with the last state otherwise."""
        last: object = None
        stream = self.jobs.Watch(job_pb2.WatchRequest(ref=name), timeout=within * PATIENCE)
        try:
            for event in stream:
                if event.job.runs:
                    run: job_pb2.Run = event.job.runs[0]
                    last = run
                    if done(run):
                        return run
        except grpc.RpcError as error:
            raise AssertionError(f"{name}: {error}; last: {last}\n{self.log_tail()}") from error
        finally:
            stream.cancel()
        raise AssertionError(f"{name}: the watch ended; last: {last}\n{self.log_tail()}")

    def reaches(self, applied: job_pb2.ApplyResult, *phases: str, within: float = 30) -> job_pb2.Run:
        """The run of what was applied, once it is in one of these phases."""
        return self.watch_until(
            applied.name, lambda run: run.generation == applied.generation and run.phase in phases, within=within
        )

    def finished(self, name: str, *, within: float = 30) -> job_pb2.Run:
        """The latest run of a job, once it is over."""
        return self.watch_until(name, lambda run: run.phase in FINAL, within=within)

    def running(self, name: str, *, within: float = 20) -> job_pb2.Run:
        """The latest run of a job, once its command runs."""
        return self.watch_until(name, lambda run: run.phase == "RUNNING", within=within)

    def delete(self, *names: str) -> None:
        """Delete jobs, and wait until they are gone."""
        for name in names:
            self.jobs.Delete(job_pb2.DeleteRequest(name=name), timeout=30 * PATIENCE)
        eventually(lambda: self.names().isdisjoint(names), what=f"{', '.join(names)} to be gone")

    def names(self) -> set[str]:
        """Of all jobs, of which there are not many."""
        return {job.name for job in self.jobs.List(job_pb2.ListRequest(), timeout=30 * PATIENCE).jobs}

    def log(
        self, ref: str, *, follow: bool = True, stream: str = "stdout", attempt: int = 0, within: float = 60
    ) -> bytes:
        """What a run wrote; with ``follow`` until it is over."""
        request = job_pb2.LogsRequest(ref=ref, follow=follow, stream=stream, attempt=attempt)
        batches = self.jobs.Logs(request, timeout=within * PATIENCE)
        return b"".join(entry.data for batch in batches for entry in batch.entries)

    def rnx(self, *arguments: str | Path, role: str = "admin", stdin: str = "", timeout: float = 60) -> Ended:
        """Run the client against this host, as a person would."""
        command = [*self.within, str(BIN / "rnx"), "--config", str(self.client_config(role)), *map(str, arguments)]
        ended = subprocess.run(
            command, input=stdin.encode(), capture_output=True, timeout=timeout * PATIENCE, check=False
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def log_tail(self) -> str:
        path = self.daemon_log
        return "--- daemon:\n" + "\n".join(path.read_text().splitlines()[-40:]) if path.exists() else ""


@dataclass(frozen=True)
class Ended:
    """How a client call ended."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def out(self) -> str:
        return self.stdout.decode()

    @property
    def err(self) -> str:
        return self.stderr.decode()


@contextmanager
def job_host(
    *addresses: str,
    port: int = 0,
    configure: Callable[[dict[str, Any]], None] | None = None,
    within: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
) -> Iterator[Host]:
    """A running host; at the end nothing of it is left, whatever happened. addresses: beside loopback.

    port: 0 for one that is free. within, environment: see Host.
    """
    root = Path(tempfile.mkdtemp(prefix=f"joblet-test-{os.getpid()}-"))  # tests/leaks.py looks for it
    host = Host(root / "h", within=within, environment=environment or {})
    host.root = root / root.name.removeprefix("joblet-test-")
    try:
        host.prepare(*addresses, port=port)
        if configure is not None:
            host.configure(configure)
        host.start()
        yield host
    finally:
        try:
            dispose(host)
        finally:
            shutil.rmtree(root, ignore_errors=True)


def dispose(host: Host) -> None:
    """Stop the daemon; if a test killed it, start one more so that it cleans up what it had made."""
    if not host.config.exists():
        return
    if host.daemon is not None and host.daemon.poll() is not None:
        host.forget_daemon()
    if host.daemon is None:
        host.start()
    try:
        host.stop()
    except subprocess.TimeoutExpired:
        host.kill()
        raise
    remove_cgroups(host.cgroup_base)
    for place in (host.root / "run/volumes").glob("*"):  # volumes in memory outlive a daemon, as they should
        if place.is_mount():
            syscalls.umount2(str(place), 0)


def cgroup_directories(base: str) -> list[Path]:
    """Where a base lies in the mounted hierarchies: v2, or each v1 controller and the unified tree."""
    relative = Path(base).relative_to("/sys/fs/cgroup")
    roots = [Path("/sys/fs/cgroup"), *(path for path in Path("/sys/fs/cgroup").iterdir() if path.is_dir())]
    return [root / relative for root in roots if (root / relative).is_dir()]


def remove_cgroups(base: str) -> None:
    """Remove what is left of a test's own hierarchy, with the slice above it: the daemon leaves that to whoever made it."""
    name = Path(base).relative_to("/sys/fs/cgroup").parts[0]
    for root in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
        if (top := root / name).is_dir():
            for child in sorted(top.rglob("*"), reverse=True):
                if child.is_dir():
                    child.rmdir()
            top.rmdir()
