"""Where volumes may be mounted, and what stands in their way."""

from __future__ import annotations

import pytest

from joblet.manifest import JobManifest, ManifestErrors, read_manifests

JOB = """
apiVersion: joblet/v1
kind: Job
metadata: {name: user}
spec:
  command: ["true"]
"""


def errors_of(more: str) -> str:
    with pytest.raises(ManifestErrors) as found:
        read_manifests(f"{JOB}{more}".encode(), filename="job.yml")
    return str(found.value)


def volumes(*items: str) -> str:
    return f"  volumes: [{', '.join(items)}]\n"


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/work", "/tmp", "/run", "/var", "/var/tmp", "/proc/x", "/etc/ssl", "/usr/local", "/dev/shm", "/bin"),
        *("/run/joblet", "/run/joblet/x", "/run/secrets", "/run/secrets/x", "data", "/a/../b", "/a//b", ""),
    ],
)
def test_the_sandboxs_own_places_and_odd_paths_are_refused(path: str) -> None:
    assert "job.yml:7:" in errors_of(volumes(f"{{name: a, path: {path!r}}}"))


@pytest.mark.parametrize(
    "path", ["/data", "/mnt", "/opt/x", "/var/lib/x", "/work/a/b", "/run/x", "/run/jobletx", "/home"]
)
def test_other_places_are_not(path: str) -> None:
    (job,) = read_manifests(f"{JOB}{volumes(f'{{name: a, path: {path}}}')}".encode(), filename="job.yml")
    assert isinstance(job, JobManifest)
    assert job.spec.volumes[0].path == path


@pytest.mark.parametrize(
    ("items", "field", "message"),
    [
        (("{name: a, path: /x}", "{name: b, path: /x/}"), "spec.volumes[1].path", '"/x" is given twice'),
        (("{name: a, path: /x}", "{name: a, path: /y}"), "spec.volumes[1].name", '"a" is given twice'),
        (("{name: a, path: /x/y}", "{name: b, path: /x}"), "spec.volumes[1].path", "lie one below the other"),
        (("{name: a, path: /x}", "{name: b, path: /x/y/z}"), "spec.volumes[1].path", "lie one below the other"),
    ],
)
def test_volumes_are_not_in_each_others_way(items: tuple[str, ...], field: str, message: str) -> None:
    text = errors_of(volumes(*items))
    assert field in text and message in text


def test_names_that_begin_alike_are_not_in_each_others_way() -> None:
    assert read_manifests(f"{JOB}{volumes('{name: a, path: /x}', '{name: b, path: /xy}')}".encode(), filename="job.yml")


@pytest.mark.parametrize("path", ["/work/data", "/work/data/sub", "/work/data/sub/file.txt"])
def test_a_volume_is_not_in_the_way_of_a_file(path: str) -> None:
    more = "  files: [{path: data/sub/file.txt, content: x}]\n" + volumes(f"{{name: a, path: {path}}}")
    assert "is in the way of the file" in errors_of(more)


def test_sixteen_volumes_are_the_most() -> None:
    items = [f"{{name: v{number}, path: /v{number}}}" for number in range(17)]
    assert read_manifests(f"{JOB}{volumes(*items[:16])}".encode(), filename="job.yml")
    assert "16" in errors_of(volumes(*items))
