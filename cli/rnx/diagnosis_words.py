"""What TLS says about certificates, in words, with what to do: alerts of the daemon about ours, findings of ours about its."""

from __future__ import annotations

ISSUE = "joblet certs issue --role admin --name NAME"
_ON_HOST = f"have a new one issued on the daemon's host: {ISSUE}"

# TLS alerts as OpenSSL names them in SSLError.reason: what the daemon says about our certificate.
ALERTS = {
    "CERTIFICATE_EXPIRED": ("the daemon says that this client's certificate has expired", _ON_HOST),
    "CERTIFICATE_REVOKED": ("the daemon says that this client's certificate was revoked", _ON_HOST),
    "UNKNOWN_CA": (
        "the daemon does not accept the certificate: another authority issued it",
        f"use one that was issued on that host: {ISSUE}",
    ),
    "CERTIFICATE_REQUIRED": ("the daemon wants a client certificate", "put cert and key into the configuration"),
    "UNSUPPORTED_CERTIFICATE": ("the daemon does not accept the certificate: it is not for clients", _ON_HOST),
    "BAD_CERTIFICATE": ("the daemon does not accept the certificate", _ON_HOST),
    "CERTIFICATE_UNKNOWN": ("the daemon does not accept the certificate", _ON_HOST),
    "ACCESS_DENIED": ("the daemon does not accept the certificate", _ON_HOST),
    "DECRYPT_ERROR": (
        "the daemon does not accept the certificate: its signature is wrong",
        f"use one that was issued on that host: {ISSUE}",
    ),
    "PROTOCOL_VERSION": ("the daemon wants another version of TLS", "install the same version on both sides"),
}

# X509_V_ERR_*: what we find about the daemon's certificate.
NOT_YET_VALID, EXPIRED, OTHER_NAME, OTHER_ADDRESS = 9, 10, 62, 64
RENEW = "joblet certs renew on its host makes a new one"
OTHER_HOST = "is this the right host, and ca the one of that host (ca.crt there)?"


def about_the_daemons(code: int, text: str, host: str) -> tuple[str, str]:
    """What is wrong with the daemon's certificate, and what to do. code, text: OpenSSL's."""
    if code == EXPIRED:
        return "the daemon's certificate has expired", RENEW
    if code == NOT_YET_VALID:
        return "the daemon's certificate is not valid yet", "are the clocks of both machines right?"
    if code in (OTHER_NAME, OTHER_ADDRESS):
        todo = f"use an address that it names, or add this one on its host: joblet certs renew --address {host}"
        return f"the daemon's certificate is not for {host}", todo
    return f"the daemon's certificate is not trusted: {text}", OTHER_HOST
