"""Between manifests of secrets and what the store holds of them: size, keyed digest and ciphertext get past here, no value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from joblet.crash_points import reached
from joblet.manifest import SealedValue, SecretManifest, SecretSpec, key_of
from jobletd.model import ResourceView
from jobletd.secrets.envelope import seal, unseal
from jobletd.secrets.errors import SecretDamaged, SecretUnknown
from jobletd.secrets.host_key import HostKey


class Vault:
    """Seals and opens."""

    def __init__(self, host_key: HostKey) -> None:
        self._host_key = host_key

    def redacted(self, manifest: SecretManifest, present: ResourceView | None) -> SecretManifest:
        """The manifest as it is stored, shown and compared. present: the secret as it is, unless it is to go.

        Raises SecretKeyError; SecretUnknown for sealed values that are not those of ``present``.
        """
        name = manifest.metadata.name
        sealed = _kept(manifest, present)
        if given := manifest.spec.values:
            key = self._host_key.get()
            for entry, value in given.items():
                sealed[entry] = SealedValue(len(value), key.digest(name, entry, value.reveal()))
        spec = SecretSpec.model_construct(sealed=dict(sorted(sealed.items())))
        return manifest.model_copy(update={"spec": spec})

    def sealed(self, view: ResourceView, manifest: SecretManifest, present: ResourceView | None) -> ResourceView:
        """The view with its values sealed. manifest: as it was given; present: where it keeps sealed values from."""
        values = {key: value.reveal() for key, value in manifest.spec.values.items()}
        if kept := manifest.spec.sealed.keys():
            assert present is not None  # ``redacted`` has looked
            before = self.open(present)
            values |= {key: before[key] for key in kept}
        sealed = seal(self._host_key.get(), view.uid, values)
        reached("secret.sealed")
        return replace(view, secret=sealed)

    def open(self, view: ResourceView) -> Mapping[str, bytes]:
        """The values. Raises SecretKeyError, SecretDamaged."""
        if view.secret is None:
            raise SecretDamaged("its sealed values are gone", where=view.name, todo="apply its manifest again")
        values = unseal(self._host_key.get(), view.uid, view.secret, what=view.name)
        assert isinstance(view.manifest, SecretManifest)
        if values.keys() != view.manifest.spec.sealed.keys():
            raise SecretDamaged("its sealed values are not those it lists", where=view.name, todo="apply it again")
        return values


def _kept(manifest: SecretManifest, present: ResourceView | None) -> dict[str, SealedValue]:
    """The sealed values that a manifest names, as ``rnx get -o yaml`` gave it: they must be the ones that are there."""
    there: Mapping[str, SealedValue] = {}
    if present is not None and isinstance(present.manifest, SecretManifest):
        there = present.manifest.spec.sealed
    for key, value in manifest.spec.sealed.items():
        if there.get(key) != value:
            raise SecretUnknown(
                f"this host has no such sealed value of {key}",
                where=key_of(manifest),
                todo="give the value itself below spec.data; sealed values cannot be copied from elsewhere",
            )
    return dict(manifest.spec.sealed)
