"""Manifests of kind GitSource."""

from __future__ import annotations

import jsonschema
import pytest

from joblet.manifest import GitPrune, GitSourceManifest, ManifestErrors, key_of, read_manifests, schema_of, to_yaml

HEAD = "apiVersion: joblet/v1\nkind: GitSource\nmetadata: {name: fleet}\n"


def source(spec: str) -> GitSourceManifest:
    (manifest,) = read_manifests(f"{HEAD}spec: {{{spec}}}\n".encode(), filename="fleet.yml")
    assert isinstance(manifest, GitSourceManifest)
    return manifest


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example.org/team/jobs.git",
        "https://git.example.org:8443/jobs",
        "ssh://git@git.example.org:2222/team/jobs.git",
        "git@git.example.org:team/jobs.git",
        "file:///srv/git/jobs.git",
    ],
)
def test_a_source_is_read_and_written_back(url: str) -> None:
    manifest = source(
        f"url: '{url}', ref: {{semver: ^1.2}}, path: jobs, signature: {{sshSigners: 'a@b ssh-ed25519 A'}}"
    )
    assert (manifest.spec.url, key_of(manifest)) == (url, "gitsource/fleet")
    assert read_manifests(to_yaml(manifest).encode(), filename="again.yml") == (manifest,)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("url: 'http://git.example.org/jobs'", "is not encrypted"),
        ("url: 'git://git.example.org/jobs'", "is not encrypted"),
        ("url: 'https://ann:secret@git.example.org/jobs'", "holds a user or password"),
        ("url: 'ssh://-oProxyCommand=x/jobs'", "is not the URL"),
        ("url: 'git@host:-x'", "is not the URL"),
        ("url: 'ext::sh -c id'", "is not the URL"),
        ("url: 'file://host/jobs'", "is not the URL"),
        ("url: 'https://h/x y'", "is not the URL"),
        ("ref: {branch: main, tag: v1}", "branch and tag are given"),
        ("ref: {branch: -x}", "is not the name of a branch"),
        ("ref: {branch: a..b}", "is not the name of a branch"),
        ("ref: {commit: 1a2b3c}", "is not a commit's id"),
        ("ref: {semver: latest}", "is not a range of versions"),
        ("path: ../x", "is not a directory of a repository"),
        ("path: /x", "is not a directory of a repository"),
        ("interval: 100ms", "is too short"),
        ("prune: {maxDelete: 50}", "is not a percentage"),
        ("prune: {maxDelete: 101%}", "is not a percentage"),
        ("prune: sometimes", "is not a mapping"),
        ("signature: {}", "names nobody"),
        ("drift: fix", "is not allowed here"),
    ],
)
def test_what_is_refused_is_named(spec: str, message: str) -> None:
    whole = spec if spec.startswith("url") else f"url: 'https://git.example.org/jobs', {spec}"
    with pytest.raises(ManifestErrors) as caught:
        source(whole)
    assert message in str(caught.value)
    if "secret" in spec:
        assert "secret" not in str(caught.value)


def test_pruning_is_switched_off_in_short_or_in_full() -> None:
    url = "url: 'https://git.example.org/jobs'"
    assert source(f"{url}, prune: false") == source(f"{url}, prune: {{enabled: false}}")
    assert source(f"{url}, prune: true").spec.prune == source(url).spec.prune == GitPrune()
    for prune in (False, {"maxDelete": "10%"}):
        jsonschema.validate(
            {
                "apiVersion": "joblet/v1",
                "kind": "GitSource",
                "metadata": {"name": "fleet"},
                "spec": {"url": "https://git.example.org/jobs", "prune": prune},
            },
            schema_of("GitSource"),
        )
