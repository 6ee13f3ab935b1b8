"""What of its secrets a job gets, and in which form."""

from __future__ import annotations

from collections.abc import Mapping

from joblet.manifest import JobManifest, SecretManifest, SecretUse, key
from jobletd.executor import GivenSecrets
from jobletd.model import JobName, ResourceView
from jobletd.secrets.errors import SecretUnusable
from jobletd.secrets.vault import Vault


def missing_value(job: JobManifest, resources: Mapping[JobName, ResourceView]) -> str:
    """Why the secrets, which are all there, are not enough for this job; empty if they are."""
    for use in job.spec.secrets:
        name = _name(use)
        manifest = resources[name].manifest
        assert isinstance(manifest, SecretManifest)
        keys = sorted(manifest.spec.sealed)
        if use.key is not None and use.key not in keys:
            return f"{name} has no key {use.key}, only {', '.join(keys)}"
        if use.key is None and len(keys) > 1 and (use.env or use.path):
            return f"{name} has several keys, and spec.secrets does not say which: {', '.join(keys)}"
    return ""


def given_secrets(job: JobManifest, resources: Mapping[JobName, ResourceView], vault: Vault) -> GivenSecrets:
    """The values themselves. Raises SecretKeyError, SecretDamaged; SecretUnusable for what ``missing_value`` tells."""
    files: dict[str, bytes] = {}
    env: dict[str, bytes] = {}
    opened: dict[JobName, Mapping[str, bytes]] = {}
    for use in job.spec.secrets:
        name = _name(use)
        view = resources.get(name)
        if view is None or missing_value(job, resources):
            raise SecretUnusable("is not there any more, or lacks a key", where=name, todo="apply its manifest")
        if name not in opened:
            opened[name] = vault.open(view)
        values = opened[name]
        keys = [use.key] if use.key is not None else sorted(values)
        for entry in keys:
            if use.env is not None:
                env[use.env] = values[entry]
            else:
                files[use.path or f"{use.name}/{entry}"] = values[entry]
    return GivenSecrets(files, env)


def _name(use: SecretUse) -> JobName:
    return JobName(key("Secret", use.name))
