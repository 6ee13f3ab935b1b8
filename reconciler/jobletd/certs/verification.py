"""Whether certificates work: by themselves, and in a real call to the daemon's port as a client makes it."""

from __future__ import annotations

import datetime
import os
from contextlib import closing

import grpc

from joblet.api.channel import open_channel
from joblet.api.v1 import node_pb2, node_pb2_grpc
from joblet.config.client import NodeConfig, load_client_config
from joblet.config.private_file import read_private, read_public
from joblet.config.server import ServerConfig
from joblet.pki import check_certificate, load_certificate
from jobletd.certs.errors import CertsError
from jobletd.tls_context import credentials_of, server_context

ANSWER_SECONDS = 20.0
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104  what is reached where one listens everywhere


def check_server(config: ServerConfig, now: datetime.datetime) -> None:
    """Certificate, key, authorities and revocation lists fit together and count now. Raises CertificateError."""
    server_context(credentials_of(config.security))
    check_certificate(config.security.server_cert, config.security.ca_cert, now, where="security.serverCert")


def check_client(node: NodeConfig, config: ServerConfig, now: datetime.datetime, *, where: str) -> None:
    """The daemon accepts it and it accepts the daemon. Raises CertificateError."""
    check_certificate(node.cert, config.security.ca_cert, now, where=where)
    check_certificate(config.security.server_cert, node.ca, now, where=f"{where}: the server's certificate by its ca")


def own_client(config: ServerConfig, fallback: str) -> NodeConfig:
    """Whom a check calls as: ``security.clientCertPath``, else the first node of the file ``fallback``. Raises CertsError."""
    security = config.security
    if security.client_cert_path and security.client_key_path:
        cert, key = read_public(security.client_cert_path), read_private(security.client_key_path)
        return NodeConfig(security.client_cert_path, "", cert, key, security.ca_cert)
    if not os.path.exists(fallback):
        todo = "set security.clientCertPath and clientKeyPath, or put it there"
        raise CertsError("there is no client to call as", where=fallback, todo=todo)
    nodes = load_client_config(fallback, {}).nodes
    return next(iter(nodes.values()))


def reachable(config: ServerConfig) -> str:
    """``host:port`` of the daemon that runs with this configuration."""
    port = config.server.port
    if os.path.exists(config.port_path):
        with open(config.port_path) as file:
            port = int(file.read())
    address = config.server.address
    host = ANYWHERE.get(address, f"[{address}]" if ":" in address else address)
    return f"{host}:{port}"


def call(node: NodeConfig, config: ServerConfig, *, expected: str) -> None:
    """One call over TLS with this client, whose answer says that the daemon serves the certificate ``expected``.

    Raises CertsError with what TLS or the daemon said.
    """
    address = reachable(config)
    there = NodeConfig(node.name, address, node.cert, node.key, node.ca)
    with closing(open_channel(there)) as channel:
        try:
            answer: node_pb2.Node = node_pb2_grpc.NodeServiceStub(channel).GetNode(
                node_pb2.GetNodeRequest(), timeout=ANSWER_SECONDS
            )
        except grpc.RpcError as error:
            raise CertsError(f"a call fails: {error.details()}", where=f"{address}, as {node.name}") from error
    end = int(load_certificate(expected).not_valid_after_utc.timestamp())
    if answer.certificate_expires.seconds != end:
        raise CertsError("serves another certificate", where=address, todo="joblet reload")
