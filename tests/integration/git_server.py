"""A git server of the tests' own on loopback: https through git's http-backend, ssh through a real sshd."""

from __future__ import annotations

import base64
import datetime
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from joblet.pki import Authority
from tests.git_repository import ENVIRONMENT
from tests.integration.host import eventually
from tests.ports import held_port
from tests.timing import PATIENCE

TOKEN = "token-5f0c2f"
ADDRESS = "127.0.0.1"


class HttpsServer:
    """Serves the bare repositories of one directory to whoever has the token. requests: how many there were."""

    def __init__(self, directory: Path) -> None:
        now = datetime.datetime.now(datetime.UTC)
        authority = Authority.create(now)
        pair = authority.issue_server([ADDRESS], now)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile("w", prefix="joblet-test-", suffix=".pem") as file:
            file.write(pair.certificate + pair.key)
            file.flush()
            context.load_cert_chain(file.name)
        self.ca = authority.pair.certificate
        self.requests = 0
        self.redirect = ""  # where every request is sent instead
        self._server = ThreadingHTTPServer((ADDRESS, 0), self._handler(directory))
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://{ADDRESS}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self, directory: Path) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer()

            def do_POST(self) -> None:
                self.answer()

            def answer(self) -> None:
                server.requests += 1
                if server.redirect:
                    self.send_response(302)
                    self.send_header("Location", server.redirect)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                wanted = "Basic " + base64.b64encode(f"git:{TOKEN}".encode()).decode()
                if self.headers.get("Authorization") != wanted:
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="git"')
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                self.relay(subprocess.run(
                    ["git", "http-backend"], input=body, env=self.cgi(), capture_output=True, timeout=60 * PATIENCE, check=False
                ).stdout)  # fmt: skip  # what it refuses it answers too, and then ends with 1

            def cgi(self) -> dict[str, str]:
                url = urlsplit(self.path)
                return {
                    **ENVIRONMENT,
                    "GIT_PROJECT_ROOT": str(directory),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "REQUEST_METHOD": self.command,
                    "PATH_INFO": url.path,
                    "QUERY_STRING": url.query,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                }

            def relay(self, answer: bytes) -> None:
                head, _, body = answer.partition(b"\r\n\r\n")
                headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
                self.send_response(int(headers.pop("Status", "200").split()[0]))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(BrokenPipeError):
                    self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Not on the tests' own output."""

        return Handler


class SshServer:
    """A real sshd that lets one key in. key, known_hosts: what a client needs, as text."""

    def __init__(self, directory: Path) -> None:
        for name in ("host", "client"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name], check=True)
        self.key = (directory / "client").read_text()
        self._held = ExitStack()
        self.port = self._held.enter_context(held_port())
        kind, public, *_ = (directory / "host.pub").read_text().split()
        self.known_hosts = f"[{ADDRESS}]:{self.port} {kind} {public}\n"
        config = directory / "sshd_config"
        config.write_text(
            f"ListenAddress {ADDRESS}\nPort {self.port}\nHostKey {directory}/host\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {directory}/client.pub\nStrictModes no\nPasswordAuthentication no\n"
            "PermitRootLogin prohibit-password\nAcceptEnv GIT_PROTOCOL\n"
        )
        self._log = self._held.enter_context((directory / "sshd.log").open("w"))
        # With a /run of its own, as sshd needs a directory there while it is asked: others' servers come and go meanwhile.
        script = f"mount -t tmpfs run /run && mkdir -m 755 /run/sshd && exec /usr/sbin/sshd -D -e -f '{config}'"
        self._process = subprocess.Popen(["unshare", "--mount", "sh", "-c", script], stderr=self._log, env=ENVIRONMENT)
        eventually(self._answers, what="sshd")

    def url(self, path: Path) -> str:
        return f"ssh://root@{ADDRESS}:{self.port}{path}"

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=30 * PATIENCE)
        self._held.close()

    def _answers(self) -> bool:
        assert self._process.poll() is None, Path(self._log.name).read_text()
        with socket.socket() as probe:
            return probe.connect_ex((ADDRESS, self.port)) == 0


@contextmanager
def serving(server: HttpsServer | SshServer) -> Iterator[None]:
    try:
        yield
    finally:
        server.close()
