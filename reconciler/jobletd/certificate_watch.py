"""Says in the log, at the start and then once a day, which certificates have expired or soon will."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Iterable, Iterator

import structlog
from cryptography import x509

from joblet.clock import Clock
from joblet.config.daemon_sections import SecuritySection
from joblet.errors import JobletError
from joblet.pki import CertificateError, check_certificate, load_certificate, load_certificates
from jobletd.certs.directory import CertificateDirectory
from jobletd.certs.issued import Issued
from jobletd.tls_context import Revocations

WARN_BEFORE = datetime.timedelta(days=30)
DAY_SECONDS = 86_400.0
MEND = "joblet certs renew"
log = structlog.get_logger("certificates")


class CertificateWatch:
    """One for the daemon; ``take`` gives it what is in force."""

    def __init__(self, clock: Clock, directory: CertificateDirectory) -> None:
        """directory: where the record of what was issued lies, if there is one."""
        self._clock = clock
        self._directory = directory
        self._security = SecuritySection()
        self.expires_ns = 0
        """When the server's certificate ends."""

    def take(self, security: SecuritySection) -> None:
        """Look at these from now on. Raises CertificateError for what is none."""
        end = load_certificate(security.server_cert, where="security.serverCert").not_valid_after_utc
        self.expires_ns = int(end.timestamp()) * 10**9
        self._security = security
        self.look()

    async def run(self) -> None:
        """Look once a day, until cancelled."""
        while True:
            await asyncio.sleep(DAY_SECONDS)
            self.look()

    def expiries(self) -> Iterator[tuple[str, int]]:
        """When the server's certificate ends, and the last of the authorities, in nanoseconds since the epoch."""
        yield "server", self.expires_ns
        authorities = load_certificates(self._security.ca_cert, where="security.caCert")
        yield "authority", int(max(one.not_valid_after_utc for one in authorities).timestamp()) * 10**9

    def look(self) -> None:
        now = datetime.datetime.fromtimestamp(self._clock.wall_ns() / 1e9, datetime.UTC)
        security = self._security
        try:
            check_certificate(security.server_cert, security.ca_cert, now, where="security.serverCert")
        except CertificateError as error:
            log.warning("clients refuse the server certificate", error=str(error), todo=MEND)
        for what, expires in expiring(security, now):
            log.warning("expires soon", certificate=what, expires=expires.isoformat(" ", "seconds"), todo=MEND)
        try:
            clients = list(expiring_clients(self._directory.issued(), security.crl, now))
        except JobletError as error:
            log.warning("which clients' certificates expire is not known", error=str(error))
            return
        for one in clients:
            what = f"client {one.name} ({one.role})"
            log.warning("expires soon", certificate=what, expires=one.expires.isoformat(" ", "seconds"), todo=MEND)


def expiring_clients(issued: Iterable[Issued], crl: str, now: datetime.datetime) -> Iterator[Issued]:
    """Of each client the last certificate, if it ends within the next 30 days and was not revoked."""
    revoked = {entry.serial_number for crl_list in Revocations.of(crl).lists for entry in crl_list}
    last: dict[tuple[str, str], Issued] = {}
    for one in issued:
        if one.role and one.serial not in revoked:
            last[(one.name, one.role)] = max(last.get((one.name, one.role), one), one, key=lambda some: some.expires)
    yield from (one for one in last.values() if now < one.expires < now + WARN_BEFORE)


def expiring(security: SecuritySection, now: datetime.datetime) -> Iterator[tuple[str, datetime.datetime]]:
    """What ends within the next 30 days. An authority that has a successor may. Raises CertificateError for what is none."""
    authorities = load_certificates(security.ca_cert, where="security.caCert")
    newest = max(authorities, key=lambda one: one.not_valid_after_utc)
    server = load_certificate(security.server_cert, where="security.serverCert")
    found: tuple[tuple[str, x509.Certificate], ...] = (
        ("the server certificate", server),
        ("the certificate authority", newest),
    )
    for what, certificate in found:
        if now < certificate.not_valid_after_utc < now + WARN_BEFORE:
            yield what, certificate.not_valid_after_utc
