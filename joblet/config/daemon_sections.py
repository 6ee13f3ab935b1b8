"""The sections about the daemon itself: where it listens, whom it trusts, what it logs, where its directories are."""

from __future__ import annotations

from typing import Literal

from joblet.config.section import Reload, Section, key
from joblet.config.values import (
    AbsolutePath,
    HeaderSize,
    LogLevel,
    LogOutput,
    MessageSize,
    Pem,
    Seconds,
    Size,
    TlsVersion,
)

AT_ONCE = Reload.AT_ONCE
DEFAULT_ROOT = "/opt/joblet"


class ServerSection(Section):
    """Where the daemon listens, and how it ends."""

    address: str = key("127.0.0.1", "address", "Name or address to listen on; `0.0.0.0` or `::` for all.", min_length=1)
    port: int = key(
        50051, "port", "TCP port; 0: one that is free, written to `port` in `run.directory`.", ge=0, le=65535
    )
    mode: Literal["server"] = key("server", "mode", "What the program does: `server` is all there is.")
    timeout_seconds: Seconds = key(
        60.0, "timeout", "The longest a call may take that is no stream and no upload.", reload=AT_ONCE
    )
    on_shutdown: Literal["stop", "keep"] = key(
        "stop",
        "onShutdown",
        "What becomes of running jobs when the daemon is told to end: `stop` ends them with their grace, `keep` leaves them"
        " to the next daemon.",
        reload=AT_ONCE,
    )
    max_connections: int = key(
        1024, "maxConnections", "Connections at a time; more are refused.", reload=AT_ONCE, ge=1, le=1_000_000
    )


class SecuritySection(Section):
    """Certificates: embedded as PEM text, or in files of their own. Certificate, key and CA are needed, each in one form."""

    server_cert: Pem = key(
        "", "serverCert", "The server's certificate, with those between it and the CA.", reload=AT_ONCE
    )
    server_key: Pem = key("", "serverKey", "Its private key.", reload=AT_ONCE, secret=True)
    ca_cert: Pem = key("", "caCert", "The authorities whose client certificates are accepted.", reload=AT_ONCE)
    crl: Pem = key(
        "", "crl", "Revocation lists, one of each authority; `joblet certs revoke` writes them.", reload=AT_ONCE
    )
    server_cert_path: AbsolutePath | None = key(
        None, "serverCertPath", "File of the server's certificate, in place of `serverCert`.", reload=AT_ONCE
    )
    server_key_path: AbsolutePath | None = key(
        None, "serverKeyPath", "File of its key, readable by its owner alone, in place of `serverKey`.", reload=AT_ONCE
    )
    ca_cert_path: AbsolutePath | None = key(
        None, "caCertPath", "File of the authorities, in place of `caCert`.", reload=AT_ONCE
    )
    client_cert_path: AbsolutePath | None = key(
        None,
        "clientCertPath",
        "File of a client certificate that `joblet certs verify` and `rotate` call with, in place of the one in"
        " `rnx-config.yml`.",
        reload=AT_ONCE,
    )
    client_key_path: AbsolutePath | None = key(
        None, "clientKeyPath", "File of its key, readable by its owner alone.", reload=AT_ONCE
    )
    min_tls_version: TlsVersion = key(
        "1.3", "minTlsVersion", "The oldest version of TLS that is accepted.", reload=AT_ONCE
    )


class GrpcSection(Section):
    """Bounds of the API."""

    max_recv_bytes: MessageSize = key(16 << 20, "maxRecvMsgSize", "The largest request.")
    max_send_bytes: MessageSize = key(16 << 20, "maxSendMsgSize", "The largest answer.")
    max_header_bytes: HeaderSize = key(16 << 10, "maxHeaderListSize", "The most metadata that a call may have.")
    keep_alive_seconds: Seconds = key(
        60.0, "keepAliveTime", "After so long without a word a client is asked whether it is still there."
    )
    keep_alive_timeout_seconds: Seconds = key(
        20.0, "keepAliveTimeout", "How long it has to answer before its connection is closed."
    )


class LoggingSection(Section):
    """The daemon's own log."""

    level: LogLevel = key("INFO", "level", "The least level that is logged.", reload=AT_ONCE)
    format: Literal["text", "json"] = key(
        "text", "format", "Lines for people, or one JSON object a line.", reload=AT_ONCE
    )
    output: LogOutput = key(
        "stderr",
        "output",
        "`stdout`, `stderr`, or a file; if that is moved away (logrotate), the next line begins a new one. Under systemd"
        " all of it is in the journal too.",
        reload=AT_ONCE,
    )
    audit: AbsolutePath | None = key(
        None, "audit", "A file that also gets the lines about who changed what and who was refused.", reload=AT_ONCE
    )


class SpoolSection(Section):
    """The drop-in directory."""

    directory: AbsolutePath = key(f"{DEFAULT_ROOT}/spool", "directory", "Where manifests are dropped; root's alone.")
    rescan_seconds: Seconds = key(
        30.0, "rescanInterval", "How often it is read anew, for file systems that tell of no changes."
    )


class StateSection(Section):
    """The durable state."""

    directory: AbsolutePath = key(
        f"{DEFAULT_ROOT}/state", "directory", "Where state, volumes, uploads and jobs' workspaces lie."
    )
    key_file: AbsolutePath | None = key(
        None, "keyFile", "The key that secrets are sealed under. Without: `secret.key` in `state.directory`."
    )
    min_free_bytes: Size = key(
        64 << 20,
        "minFree",
        "Below that much free space, there or where the logs are, nothing new is accepted or started.",
    )


class BackupSection(Section):
    """The daemon's own backups."""

    directory: AbsolutePath | None = key(None, "directory", "Where they lie. Without: `backups` in `state.directory`.")
    interval_seconds: Seconds = key(86_400.0, "interval", "The time between two of them.")
    keep: int = key(7, "keep", "How many are kept, the newest.", ge=1, le=1000)


class LogsSection(Section):
    """Jobs' output."""

    directory: AbsolutePath = key(f"{DEFAULT_ROOT}/log", "directory", "Where jobs' output is kept.")


class RunSection(Section):
    """Sockets and the like."""

    directory: AbsolutePath = key(
        f"{DEFAULT_ROOT}/run", "directory", "Sockets and locks; a short path that root alone can enter."
    )
