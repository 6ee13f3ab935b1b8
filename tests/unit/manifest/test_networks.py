"""Manifests of kind Network, and how jobs name them."""

from __future__ import annotations

import jsonschema
import pytest

from joblet.manifest import (
    ManifestErrors,
    Network,
    NetworkManifest,
    key_of,
    read_manifests,
    references,
    schema_of,
    to_yaml,
)
from tests.unit.manifest.samples import manifest_text, read

NETWORK = "apiVersion: joblet/v1\nkind: Network\nmetadata: {{name: {name}}}\nspec: {{cidr: {cidr}}}\n"


def network(cidr: str = "10.20.0.0/24", name: str = "backend") -> NetworkManifest:
    (manifest,) = read_manifests(NETWORK.format(name=name, cidr=cidr).encode(), filename="network.yml")
    assert isinstance(manifest, NetworkManifest)
    return manifest


def fault(cidr: str = "10.20.0.0/24", name: str = "backend") -> str:
    with pytest.raises(ManifestErrors) as caught:
        network(cidr, name)
    return str(caught.value)


def test_a_network_is_read_and_written_back() -> None:
    manifest = network()
    assert (manifest.spec.cidr, manifest.spec.internal, key_of(manifest)) == ("10.20.0.0/24", False, "network/backend")
    assert read_manifests(to_yaml(manifest).encode(), filename="again.yml") == (manifest,)


def test_a_job_refers_to_the_network_it_names_and_to_none_that_every_host_has() -> None:
    (job,) = read(manifest_text("command: [a]\nisolation: {network: backend}"))
    assert list(references(job)) == ["network/backend"]
    for every_host_has in Network:
        (job,) = read(manifest_text(f"command: [a]\nisolation: {{network: {every_host_has}}}"))
        assert list(references(job)) == []
        assert job.spec.isolation.network is every_host_has


@pytest.mark.parametrize(
    ("cidr", "what"),
    [
        ("10.20.0.1/24", '"10.20.0.1/24" is not an IPv4 network; did you mean 10.20.0.0/24?'),
        ("10.20.0/24", "is not an IPv4 network (use one as in 10.20.0.0/24)"),
        ("fd00::/64", "is not an IPv4 network"),
        ("10.0.0.0/8", "has a prefix out of range (/16 to /29)"),
        ("10.20.0.0/30", "has a prefix out of range (/16 to /29)"),
        ("169.254.0.0/16", "has a meaning of its own"),
        ("127.1.0.0/16", "has a meaning of its own"),
        ("224.1.0.0/16", "has a meaning of its own"),
    ],
)
def test_addresses_that_cannot_be_are_refused_with_their_place(cidr: str, what: str) -> None:
    told = fault(f'"{cidr}"')
    assert what in told and "network.yml:4:14: spec.cidr" in told


@pytest.mark.parametrize("name", ["none", "host", "bridge", "isolated"])
def test_the_names_that_every_host_has_are_taken(name: str) -> None:
    assert "metadata.name" in fault(name=name) and "is a network that every host has" in fault(name=name)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(
            {
                "apiVersion": "joblet/v1",
                "kind": "Network",
                "metadata": {"name": name},
                "spec": {"cidr": "10.20.0.0/24"},
            },
            schema_of("Network"),
        )
