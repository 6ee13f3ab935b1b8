"""The webhook endpoint over real sockets: who knows the secret starts a look, and nobody can do anything else."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import hmac
import http.client
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from joblet.config import ConfigError
from joblet.config.fleet_sections import WebhookSection
from joblet.pki import Authority
from jobletd.errors import NoSuchResource, WrongState
from jobletd.sources.git import webhook
from jobletd.sources.git.webhook import RateBound, Webhook, WebhookError
from tests.timing import PATIENCE

SECRET = "a secret of the tests"
BODY = b'{"ref": "refs/heads/main"}'


class Endpoint:
    """One that listens, in an event loop of its own. pushed: the names of the repositories that were looked at."""

    def __init__(self, **settings: Any) -> None:
        self.pushed: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        given = {"enabled": True, "port": 0, "secret": SECRET, **settings}
        self.webhook = Webhook(WebhookSection.model_validate(given), self._look)
        self.tls: ssl.SSLContext | None = None
        try:
            self.port = asyncio.run_coroutine_threadsafe(self.webhook.start(), self._loop).result(10 * PATIENCE)
        except BaseException:
            self._end()
            raise

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.webhook.stop(), self._loop).result(10 * PATIENCE)
        self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _look(self, name: str) -> None:
        if name == "suspended":
            raise WrongState("is suspended")
        if name != "fleet":
            raise NoSuchResource("gitsource", name)
        self.pushed.append(name)

    def connect(self) -> http.client.HTTPConnection:
        if self.tls is not None:
            return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10 * PATIENCE, context=self.tls)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=10 * PATIENCE)

    def ask(
        self, headers: dict[str, str], *, path: str = "/gitsources/fleet", body: bytes = BODY, method: str = "POST"
    ) -> int:
        connection = self.connect()
        try:
            connection.request(method, path, body=body, headers=headers)
            return connection.getresponse().status
        finally:
            connection.close()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


def signature(body: bytes = BODY, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


FORMS: dict[str, Callable[[str], dict[str, str]]] = {
    "GitHub": lambda secret: {"X-GitHub-Event": "push", "X-Hub-Signature-256": f"sha256={signature(secret=secret)}"},
    "Gitea": lambda secret: {"X-Gitea-Event": "push", "X-Gitea-Signature": signature(secret=secret)},
    "Forgejo": lambda secret: {"X-Forgejo-Signature": signature(secret=secret)},
    "GitLab": lambda secret: {"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": secret},
}


@pytest.mark.parametrize("form", FORMS)
def test_each_hosters_form_starts_a_look_if_it_has_the_secret(endpoint: Endpoint, form: str) -> None:
    assert endpoint.ask(FORMS[form]("another secret")) == 401 and endpoint.pushed == []
    assert endpoint.ask(FORMS[form](SECRET)) == 202 and endpoint.pushed == ["fleet"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Hub-Signature-256": ""},
        {"X-Hub-Signature-256": f"sha256={signature(b'another body')}"},
        {"X-Hub-Signature": "sha1=" + hmac.new(SECRET.encode(), BODY, hashlib.sha1).hexdigest()},
        {"X-Gitlab-Token": ""},
        {"X-Gitlab-Token": "\u00e9" * 8},
        {"X-Gitlab-Token": "wrong", "X-Gitea-Signature": signature()},
    ],
)
def test_who_does_not_show_the_secret_is_refused_with_the_address_and_learns_nothing(
    endpoint: Endpoint, headers: dict[str, str]
) -> None:
    with structlog.testing.capture_logs() as log:
        assert endpoint.ask(headers) == 401
        assert endpoint.ask(headers, path="/gitsources/nothing") == 401
    assert endpoint.pushed == []
    refused = [line for line in log if line["event"] == "connection refused"]
    assert (
        len(refused) == 2
        and refused[0]["peer"].startswith("127.0.0.1:")
        and refused[0]["reason"] == "WEBHOOK: WRONG_SECRET"
    )
    assert SECRET not in str(log)


def test_what_is_asked_for_with_the_secret_and_is_not_there_is_said(endpoint: Endpoint) -> None:
    headers = FORMS["Gitea"](SECRET)
    assert endpoint.ask(headers, path="/gitsources/nothing") == 404
    assert endpoint.ask(headers, path="/gitsources/suspended") == 409
    for path in ("/", "/gitsources/", "/gitsources/../fleet", "/gitsources/fleet/more", "/gitsources/FLEET"):
        assert endpoint.ask(headers, path=path) == 404
    assert endpoint.ask(headers, path="/gitsources/fleet?now") == 202


def test_what_is_no_request_of_a_hoster_is_refused(endpoint: Endpoint) -> None:
    headers = FORMS["GitHub"](SECRET)
    assert endpoint.ask(headers, method="GET") == 405
    assert endpoint.ask({**headers, "Content-Length": str(webhook.BODY_BYTES + 1)}) == 413
    assert endpoint.ask({**headers, "Content-Length": "-1"}) == 400
    assert endpoint.ask({**headers, "Transfer-Encoding": "chunked"}) == 411
    for text in (
        b"\r\n\r\n",
        b"GARBAGE\r\n\r\n",
        b"POST / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST / HTTP/1.1\r\na b: c\r\n\r\n",
    ):
        assert raw(endpoint, text).startswith(b"HTTP/1.1 400 ")
    twice = b"POST /gitsources/fleet HTTP/1.1\r\nX-Gitlab-Token: x\r\nX-Gitlab-Token: " + SECRET.encode() + b"\r\n\r\n"
    assert raw(endpoint, twice).startswith(b"HTTP/1.1 400 ")
    assert raw(endpoint, b"POST / HTTP/1.1\r\nx: " + b"y" * (64 << 10)) == b""
    assert endpoint.pushed == []


def raw(endpoint: Endpoint, text: bytes) -> bytes:
    """What comes back before the end."""
    connection = endpoint.connect()
    connection.connect()
    try:
        connection.sock.sendall(text)
        found = b""
        while part := connection.sock.recv(4096):
            found += part
        return found
    except (ConnectionResetError, BrokenPipeError):  # cut off: before the other end's farewell was seen, or after it
        return b""
    finally:
        connection.close()


def test_a_large_body_is_read_and_not_kept(endpoint: Endpoint) -> None:
    body = b"x" * (8 << 20)
    assert endpoint.ask({"X-Hub-Signature-256": f"sha256={signature(body)}"}, body=body) == 202


def test_who_says_nothing_is_let_go_and_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhook, "REQUEST_SECONDS", 0.5)
    monkeypatch.setattr(webhook, "MOST_CONNECTIONS", 2)
    endpoint = Endpoint()
    try:
        silent = [endpoint.connect() for _ in range(2)]
        for one in silent:
            one.connect()
        for one in silent:
            assert one.sock.recv(1) == b"", "it was closed"
            one.close()
        monkeypatch.setattr(webhook, "REQUEST_SECONDS", 15.0 * PATIENCE)  # a request may take half a second here
        assert endpoint.ask(FORMS["GitLab"](SECRET)) == 202
    finally:
        endpoint.close()


def test_an_address_may_ask_only_so_often() -> None:
    now = [1000.0]
    rate = RateBound(lambda: now[0])
    assert all(rate.allows("a") for _ in range(webhook.BURST))
    assert not rate.allows("a") and rate.allows("b")
    now[0] += 1 / webhook.A_SECOND
    assert rate.allows("a") and not rate.allows("a")
    for number in range(2 * webhook.MOST_ADDRESSES):
        rate.allows(str(number))
    assert len(rate._left) == webhook.MOST_ADDRESSES


def test_who_asks_too_often_is_refused(endpoint: Endpoint) -> None:
    answers = [endpoint.ask({}) for _ in range(webhook.BURST + 5)]
    assert answers[0] == 401 and 429 in answers


def test_with_a_certificate_it_speaks_tls(tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    authority = Authority.create(now)
    pair = authority.issue_server(["127.0.0.1"], now)
    for name, text in (("cert", pair.certificate), ("key", pair.key)):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text(text)
    endpoint = Endpoint(certPath=f"{tmp_path}/cert", keyPath=f"{tmp_path}/key")
    try:
        assert raw(endpoint, b"POST / HTTP/1.1\r\n\r\n")[:1] != b"H"
        endpoint.tls = ssl.create_default_context(cadata=authority.pair.certificate)
        assert endpoint.ask(FORMS["GitHub"](SECRET)) == 202
    finally:
        endpoint.close()
    (tmp_path / "key").chmod(0o644)
    with pytest.raises(ConfigError, match="can be read by others"):
        Endpoint(certPath=f"{tmp_path}/cert", keyPath=f"{tmp_path}/key")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"secret": ""}, "needs a secret"),
        ({"secret": "short"}, "shorter than 16"),
        ({"secretPath": "/s"}, "one of secret and secretPath"),
        ({"address": "0.0.0.0"}, "loopback alone"),
        ({"certPath": "/c"}, "belong together"),
    ],
)
def test_settings_that_would_be_unsafe_are_refused(settings: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        WebhookSection.model_validate({"enabled": True, "secret": SECRET, **settings})


def test_a_secret_in_a_file_is_read_and_an_empty_one_refused(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.touch(0o600)
    with pytest.raises(ConfigError, match="less than 16"):
        Endpoint(secret="", secretPath=str(file))
    file.write_text(f"{SECRET}\n")
    endpoint = Endpoint(secret="", secretPath=str(file))
    try:
        assert endpoint.ask(FORMS["GitHub"](SECRET)) == 202
        with pytest.raises(WebhookError, match=r"webhook\.port"):
            Endpoint(port=endpoint.port)
    finally:
        endpoint.close()
