"""One request to a real server: what is sent, what counts as delivered, and what is never followed or waited for."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from jobletd.notifying.webhook import NotDelivered, post, signed
from tests.ports import held_port
from tests.timing import PATIENCE
from tests.unit.notifying.receiver import Receiver, listening

BODY = b'{"kind":"Notification"}'


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with listening() as receiver:
        yield receiver


def send(url: str, seconds: float = 15.0, headers: dict[str, str] | None = None) -> None:
    asyncio.run(post(url, BODY, headers or {}, seconds=seconds * PATIENCE))


def test_the_body_arrives_with_its_headers_at_path_and_query(receiver: Receiver) -> None:
    send(f"{receiver.url}/hook?token=a%20b", headers=signed("n-1", BODY, b"key", 1_767_322_985))
    (received,) = receiver.wait_for(1)
    assert (received.path, received.body) == ("/hook?token=a%20b", BODY)
    assert received.headers["content-type"] == "application/json"
    assert received.headers["webhook-id"] == "n-1"
    digest = hmac.new(b"key", b"n-1.1767322985." + BODY, hashlib.sha256).digest()
    assert received.headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()


def test_without_a_key_there_is_no_signature() -> None:
    assert signed("n-1", BODY, None, 7) == {"webhook-id": "n-1", "webhook-timestamp": "7"}


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 500, 503])
def test_an_answer_other_than_2xx_is_no_delivery_and_a_redirect_is_not_followed(
    receiver: Receiver, status: int
) -> None:
    receiver.statuses, receiver.location = [status], f"{receiver.url}/elsewhere"
    with pytest.raises(NotDelivered, match=f"answered with status {status}") as found:
        send(f"{receiver.url}/secret?token=1")
    assert [one.path for one in receiver.received] == ["/secret?token=1"]
    assert "secret" not in str(found.value) and "token" not in str(found.value)


def test_who_does_not_answer_is_not_waited_for(receiver: Receiver) -> None:
    receiver.stall = threading.Event()
    with pytest.raises(NotDelivered, match="no answer within"):
        send(receiver.url, seconds=0.2 / PATIENCE)


def test_who_listens_nowhere_is_told_apart() -> None:
    with held_port() as port, pytest.raises(NotDelivered, match=r"http://127.0.0.1:\d+: cannot be reached"):
        send(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 2x0\r\n", b"HTTP/1.1 200" + b"x" * 100_000, b"\xff\n"]
)
def test_an_answer_that_is_no_http_is_no_delivery(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                with suppress(ConnectionError):  # more than it wanted to read
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(NotDelivered):
            send(f"http://127.0.0.1:{server.getsockname()[1]}/")
        thread.join()
