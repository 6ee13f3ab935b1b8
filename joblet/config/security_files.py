"""Certificates and keys that the configuration names by path: read when it is, so that a reload sees what changed in them."""

from __future__ import annotations

from joblet.config.daemon_sections import SecuritySection
from joblet.config.private_file import read_private, read_public
from joblet.config.yaml_places import ConfigText

_NEEDED = (("serverCert", "server_cert"), ("serverKey", "server_key"), ("caCert", "ca_cert"))
_KEYS = ("serverKey",)


def with_files_read(security: SecuritySection, source: ConfigText) -> SecuritySection:
    """The same with the files' texts in place of paths. Raises ConfigError with the place of the key concerned."""
    texts: dict[str, str] = {}
    for alias, field in _NEEDED:
        embedded, path = getattr(security, field), getattr(security, f"{field}_path")
        if embedded and path:
            source.fail(("security", f"{alias}Path"), f"stands beside {alias}", todo="give one of the two")
        if not embedded and not path:
            source.fail(
                ("security", alias),
                "is missing",
                todo=f"joblet certs init makes certificates; or give {alias}Path",
            )
        if path:
            texts[field] = read_private(path) if alias in _KEYS else read_public(path)
    if (security.client_cert_path is None) != (security.client_key_path is None):
        source.fail(("security",), "clientCertPath and clientKeyPath go together", todo="give both or none")
    return security.model_copy(update=texts)
