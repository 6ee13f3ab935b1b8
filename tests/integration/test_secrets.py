"""Secrets with a real daemon and real jobs: the job sees its values, and nothing else does, wherever one looks."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from joblet.api.v1 import job_pb2
from joblet.crash_points import VARIABLE
from rnx.main import run
from tests.canary import files_with
from tests.integration.host import Host, eventually, job_host
from tests.integration.small_root import make_root
from tests.timing import PATIENCE

CANARY = "hunter2-canary-5f1e"
FORMS = (CANARY.encode(), base64.b64encode(CANARY.encode()), CANARY.encode().hex().encode())
DIGEST = hashlib.sha256(CANARY.encode()).hexdigest()
# What the client says is the same on any kernel, and in the guest each of its calls takes seconds.
CLIENTS_WORDS = pytest.mark.native_only(reason="the client's words, which no kernel and no hierarchy changes")
SECRET = f"""\
apiVersion: joblet/v1
kind: Secret
metadata: {{name: db}}
spec: {{data: {{password: {CANARY}, user: reports}}}}
"""
JOB = """\
apiVersion: joblet/v1
kind: Job
metadata: {{name: {name}}}
spec:
  command: [sh, -euc, {script}]
  secrets: {secrets}
  stop: {{grace: 0s}}
  isolation: {{user: {user}}}
"""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with job_host(configure=lambda config: config["logging"].update(level="DEBUG")) as host:
        host.apply(SECRET)
        yield host


def job(name: str, script: str, *, secrets: str = "[{name: db}]", user: int = 0) -> str:
    return JOB.format(name=name, script=json.dumps(script), secrets=secrets, user=user)


def output(host: Host, name: str, script: str, *, secrets: str = "[{name: db}]", user: int = 0) -> list[str]:
    host.apply(job(name, script, secrets=secrets, user=user))
    run = host.finished(name)
    assert run.phase == "COMPLETED", (run, host.log(name, stream="", follow=False))
    return host.log(name).decode().splitlines()


@pytest.mark.parametrize("user", [0, 1000])
def test_files_are_for_the_jobs_user_alone_on_a_ramfs_that_is_read_only(host: Host, user: int) -> None:
    script = """
        sha256sum < /run/secrets/db/password
        stat -c '%n %a %u %g' /run/secrets/db/password /run/secrets/db /run/secrets
        grep ' /run/secrets ' /proc/self/mounts | cut -d' ' -f3,4
        for change in 'rm -f /run/secrets/db/password' 'mkdir /run/secrets/x' 'umount /run/secrets'; do
            $change 2>/dev/null && exit 3
        done
        echo unchanged
    """
    digest, *lines = output(host, f"files-{user}", script, user=user)
    assert digest == f"{DIGEST}  -"
    assert lines[:3] == [
        f"/run/secrets/db/password 400 {user} {user}",
        f"/run/secrets/db 500 {user} {user}",
        f"/run/secrets 500 {user} {user}",
    ]
    kind, options = lines[3].split()
    assert kind == "ramfs" and {"ro", "nosuid", "nodev", "noexec"} <= set(options.split(","))
    assert lines[4] == "unchanged"


def test_a_variable_and_a_path_of_ones_own(host: Host) -> None:
    secrets = "[{name: db, key: password, env: PGPASSWORD}, {name: db, key: user, path: a/b/name}]"
    script = 'printf %s "$PGPASSWORD" | sha256sum; cat /run/secrets/a/b/name; echo; ls /run/secrets'
    assert output(host, "variable", script, secrets=secrets) == [f"{DIGEST}  -", "***", "a"]


def test_what_a_job_writes_is_kept_without_the_values(host: Host) -> None:
    """Cut in two by a chunk's end, on both streams, line by line, without an end of line, and in what is handed on."""
    host.apply(SECRET.replace("db", "key").replace(CANARY, '"FIRST-LINE-8c1d\\n\\n  SECOND-LINE-9e2f"'))
    script = """
        head -c 65530 /dev/zero | tr '\\0' x
        cat /run/secrets/db/password; echo
        sed 's/^/> /' /run/secrets/key/password >&2
        { printf 'token='; cat /run/secrets/db/password; } > outputs/token
        printf 'end %s' "$P"
    """
    secrets = "[{name: db}, {name: key}, {name: db, key: password, env: P}]"
    host.apply(job("talks", script, secrets=secrets).rstrip() + "\n  outputs: [token]\n")
    run = host.finished("talks")
    assert run.phase == "COMPLETED", host.log("talks", stream="", follow=False)
    assert host.log("talks", stream="stdout") == b"x" * 65530 + b"***\nend ***"
    assert host.log("talks", stream="stderr") == b"> ***\n> \n>   ***"
    assert dict(run.outputs) == {"token": "token=***"}
    assert files_with(FORMS, host.root) == []


def test_a_job_on_a_root_of_its_own_gets_its_secrets_too(host: Host) -> None:
    image = host.root / "images/small"
    make_root(image)
    text = job("rooted", "test $(stat -c %a /run/secrets/db/password) = 400; stat -c %s /run/secrets/db/password")
    host.apply(text.replace("{user: 0}", f"{{user: 0, rootfs: {image}}}"))
    assert host.finished("rooted").phase == "COMPLETED", host.log("rooted", stream="", follow=False)
    assert host.log("rooted").split() == [b"19"]
    assert not (image / "run/secrets").exists()


def test_another_job_sees_neither_files_nor_values(host: Host) -> None:
    host.apply(job("holder", "sleep 600", secrets="[{name: db}, {name: db, key: password, env: P}]"))
    host.running("holder")
    script = "ls /run/secrets 2>/dev/null && exit 3; cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -c ^P= || true"
    assert output(host, "curious", script, secrets="[]") == ["0"]
    host.jobs.Delete(job_pb2.DeleteRequest(name="holder"))


def test_init_keeps_what_it_knows_from_the_job(host: Host) -> None:
    script = (
        "cat /proc/1/mem >/dev/null 2>&1 && exit 3; cat /proc/1/environ 2>/dev/null | wc -c; ls /proc/self/fd | wc -l"
    )
    assert output(host, "reader", script) == ["0", "4"]


def test_nothing_on_the_host_holds_the_value(host: Host) -> None:
    """After applying, running, diffing, failing, and while a job with the value runs."""
    secrets = "[{name: db}, {name: db, key: password, env: P}]"
    host.apply(job("fails", "exit 7", secrets=secrets))
    assert host.finished("fails").exit_code == 7
    host.apply(job("unstarted", "true", secrets="[{name: db, path: x}]"))
    assert "does not say which" in host.watch_until("unstarted", lambda run: run.reason == "Waiting").message
    host.apply(job("runs", "sleep 600", secrets=secrets))
    host.running("runs")
    spool = host.spool / "broken.yml"
    spool.write_text(SECRET.replace(f"password: {CANARY}", f"password: [{CANARY}]").replace("db", "broken"))
    error = host.spool / "status/broken.yml.error.yml"
    eventually(error.exists, what="the error file")
    assert "is not text" in error.read_text()
    spool.unlink()
    eventually(lambda: not error.exists(), what="the error file's removal")
    host.kill()  # the write-ahead log stays as it is
    try:
        assert (host.root / "state/joblet.db-wal").stat().st_size > 0
        assert b"secret/db" in (host.root / "state/joblet.db-wal").read_bytes()
        assert files_with(FORMS, host.root) == []
    finally:
        host.start()
    assert files_with(FORMS, host.root) == []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert CANARY.encode() not in process.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
    host.jobs.Delete(job_pb2.DeleteRequest(name="runs"))


@CLIENTS_WORDS
def test_no_output_of_the_client_shows_the_value(
    host: Host, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    path = tmp_path / "secret.yml"
    path.write_text(SECRET.replace("reports", "other"))
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(SECRET.replace(f"password: {CANARY}", f"password: {{a: {CANARY}}}"))
    output(host, "shown", "true", secrets="[{name: db}, {name: db, key: password, env: P}]")
    commands = [
        *(["get", "secrets", "-o", form] for form in ("table", "wide", "json", "yaml", "name")),
        *(["get", what, "-o", form] for what in ("secret/db", "shown") for form in ("json", "yaml")),
        ["get", "secret/db", "--manifest"], ["secret", "list"], ["describe", "shown"], ["status", "shown"],
        ["list", "-o", "yaml"], ["events"], ["diff", "-f", str(path)], ["apply", "-f", str(path), "--dry-run"],
        ["validate", "-f", str(wrong)], ["apply", "-f", str(wrong)], ["diff", "-f", str(wrong)],
        ["secret", "create", "db", "--from-literal", f"password={CANARY}"],
    ]  # fmt: skip
    for command in commands:
        for role in ("admin", "viewer"):
            # In this process: that many interpreters would take a minute to start in the guest.
            run(["--config", str(host.client_config(role)), *command])
            said = b"".join(capfdbinary.readouterr())
            assert said, command
            assert not any(form in said for form in FORMS), command
    difference = host.rnx("diff", "-f", path)
    assert difference.status == 1 and '-    user: "7:' in difference.out and '+    user: "5:' in difference.out
    assert "password (19 bytes), user (7 bytes)" in host.rnx("get", "secrets").out


def test_no_error_of_the_api_shows_the_value(host: Host) -> None:
    for text in (SECRET.replace(CANARY, f"[{CANARY}]"), SECRET.replace("data:", f"data: {CANARY}\n  x:")):
        with pytest.raises(grpc.RpcError) as refused:
            host.apply(text)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert CANARY not in str(refused.value.details()) + str(refused.value.trailing_metadata())


def test_the_key_is_roots_alone_and_the_daemon_refuses_it_otherwise(host: Host) -> None:
    key = host.root / "state/secret.key"
    assert (stat.S_IMODE(key.stat().st_mode), key.stat().st_uid) == (0o600, os.getuid())
    key.chmod(0o644)
    try:
        with pytest.raises(grpc.RpcError) as refused:
            host.apply(SECRET.replace("db", "another"))
        assert f"chmod 600 {key}" in str(refused.value.details())
    finally:
        key.chmod(0o600)


@CLIENTS_WORDS
def test_a_secret_is_kept_by_hand_and_used_by_run(host: Host, tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(bytes(range(256)))
    made = host.rnx(
        "secret", "create", "byhand", "--from-file", f"blob={binary}", "--from-file", "typed=-", stdin=CANARY
    )
    assert (made.status, made.out) == (0, "secret/byhand created\n"), made.err
    again = host.rnx("secret", "create", "byhand", "--from-literal", "a=b")
    assert (again.status, "--replace" in again.err) == (6, True)
    ran = host.rnx(
        "run", "-w", "--secret", "byhand", "--secret", "byhand/typed:TYPED",
        "sh", "-c", "wc -c < /run/secrets/byhand/blob; echo ${#TYPED}",
    )  # fmt: skip
    assert (ran.status, ran.out) == (0, f"256\n{len(CANARY)}\n"), ran.err
    nul = host.rnx("run", "-w", "--secret", "byhand/blob:BLOB", "true")
    assert nul.status == 126 and "holds a NUL byte" in nul.err
    removed = host.rnx("secret", "remove", "byhand", "nosuch")
    assert (removed.status, removed.out) == (3, "secret/byhand deleted\n")
    eventually(lambda: host.rnx("get", "secret/byhand").status == 3, what="the secret is gone")


@CLIENTS_WORDS
def test_a_viewer_sees_that_it_is_there_and_may_not_keep_one(host: Host) -> None:
    assert host.rnx("secret", "list", role="viewer").status == 0
    assert host.rnx("secret", "create", "x", "--from-literal", "a=b", role="viewer").status == 5
    assert host.rnx("secret", "remove", "db", role="viewer").status == 5


@CLIENTS_WORDS
def test_a_file_in_the_spool_that_others_can_read_gets_a_warning(host: Host) -> None:
    path = host.spool / "open.yml"
    hidden = host.spool / ".open"  # it appears with the mode it is warned of
    hidden.write_text(SECRET.replace("name: db", "name: open"))
    hidden.chmod(0o644)
    hidden.rename(path)
    eventually(lambda: host.rnx("get", "secret/open").status == 0, what="the secret")
    eventually(lambda: "ReadableByOthers" in host.rnx("events", "secret/open").out, what="the warning")
    assert f"chmod 600 {path}" in host.rnx("events", "secret/open").out
    path.unlink()
    eventually(lambda: host.rnx("get", "secret/open").status == 3, what="the secret is gone")


def test_an_attempt_whose_daemon_dies_over_the_launch_gets_its_secrets_all_the_same(tmp_path: Path) -> None:
    with job_host(environment={VARIABLE: str(tmp_path)}) as host:
        host.apply(SECRET)
        (tmp_path / "daemon.launched").touch()
        with suppress(grpc.RpcError):  # it is on record by then, acknowledged or not
            host.apply(job("survivor", "test -s /run/secrets/db/password; echo got; exec sleep 600"))
        assert host.daemon is not None
        host.daemon.wait(60 * PATIENCE)
        host.start()
        eventually(lambda: host.log("survivor", follow=False) == b"got\n", what="the job has its secret")
        run = host.running("survivor")
        assert [attempt.number for attempt in run.attempts] == [1]
