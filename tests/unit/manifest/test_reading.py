"""Reading manifests: what is accepted, and where errors are said to stand."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from joblet.manifest import Enforcement, JobManifest, Network, Restart, Seccomp, read_manifests
from tests.unit.manifest.samples import FULL, errors, lines, manifest_text, raw, read


def only(text: str) -> JobManifest:
    (manifest,) = read(text)
    return manifest


def test_every_field_of_a_full_manifest_arrives_in_its_unit() -> None:
    manifest = only(FULL)
    spec, limits = manifest.spec, manifest.spec.limits
    assert (manifest.api_version, manifest.kind, manifest.metadata.name) == ("joblet/v1", "Job", "nightly-report")
    assert manifest.metadata.labels == {"team": "data"}
    assert manifest.metadata.annotations == {"owner": "data@example.org"}
    assert spec.command == ("python3", "report.py", "--date", "yesterday")
    assert (spec.script, spec.env, spec.workdir) == (None, {"TZ": "UTC"}, "/work/in")
    assert [(file.path, file.mode, file.content) for file in spec.files] == [("report.py", 0o755, "print()")]
    assert (limits.cpu_percent, limits.cpus, limits.memory_bytes, limits.swap_bytes) == (
        150.0,
        "0-1",
        512 << 20,
        1 << 20,
    )
    assert (limits.pids, limits.disk_bytes, limits.logs_bytes) == (128, 1 << 30, 1 << 20)
    assert limits.enforcement is Enforcement.BEST_EFFORT
    assert limits.io is not None
    assert (limits.io.read_bytes, limits.io.write_bytes, limits.io.read_ops, limits.io.write_ops) == (
        10 << 20,
        10 << 20,
        500,
        500,
    )
    assert (spec.timeout_seconds, spec.attempt_timeout_seconds) == (1800.0, 600.0)
    assert (spec.stop.signal, spec.stop.grace_seconds) == ("SIGINT", 5.0)
    assert (spec.retry.limit, spec.retry.initial_seconds, spec.retry.max_seconds) == (3, 1.0, 60.0)
    assert (spec.retry.on_exit_codes, spec.retry.never_on_exit_codes) == ((1, 75), (2,))
    assert spec.restart is Restart.NEVER
    assert (spec.isolation.network, spec.isolation.user, spec.isolation.hostname) == (Network.HOST, 1000, "reports")
    assert (spec.isolation.capabilities, spec.isolation.rootfs) == (("NET_BIND_SERVICE",), "/srv/root")
    assert spec.isolation.seccomp is Seccomp.DEFAULT
    assert (spec.history.keep, spec.history.for_seconds, spec.suspend) == (3, 7 * 86400.0, True)


def test_the_defaults_are_those_of_the_design() -> None:
    spec = only(manifest_text("command: ['true']")).spec
    assert (spec.workdir, spec.env, spec.files, spec.suspend, spec.restart) == ("/work", {}, (), False, Restart.NEVER)
    assert (spec.limits.swap_bytes, spec.limits.logs_bytes, spec.limits.enforcement) == (
        0,
        64 << 20,
        Enforcement.STRICT,
    )
    assert (spec.limits.cpu_percent, spec.limits.memory_bytes, spec.limits.io) == (None, None, None)
    assert (spec.stop.signal, spec.stop.grace_seconds) == ("SIGTERM", 10.0)
    assert (spec.retry.limit, spec.retry.initial_seconds, spec.retry.max_seconds) == (0, 10.0, 300.0)
    assert (spec.history.keep, spec.history.for_seconds) == (10, 30 * 86400.0)
    assert (spec.isolation.network, spec.isolation.rootfs, spec.isolation.hostname) == (Network.NONE, "host", None)


def test_several_documents_become_several_manifests_in_order() -> None:
    text = "---\n".join(manifest_text("command: [x]", name) for name in ("b", "a", "c"))
    assert [manifest.metadata.name for manifest in read("# head\n---\n" + text + "---\n...\n")] == ["b", "a", "c"]


def test_json_works_where_yaml_does() -> None:
    text = json.dumps(raw(command=["echo", "\U0001f600\u2028\x7f"]), indent="\t")
    expected = ("echo", "\U0001f600\u2028\x7f")
    for name in ("job.json", "job.yml", "-"):
        (manifest,) = read(text, name)
        assert manifest.spec.command == expected


def test_flow_style_yaml_is_not_mistaken_for_json() -> None:
    (manifest,) = read("{apiVersion: joblet/v1, kind: Job, metadata: {name: a}, spec: {command: [x]}}")
    assert manifest.metadata.name == "a"


def test_a_byte_order_mark_and_windows_line_ends_are_accepted() -> None:
    text = manifest_text("script: |\n  echo a\n  echo b")
    (manifest,) = read(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert manifest.spec.script == "echo a\necho b\n"


def test_words_that_other_yaml_versions_read_as_something_else_stay_text() -> None:
    text = manifest_text("command: [yes, on, NO, 2026-01-02, 12:30:45, 1_000, http://x:1/a, 0b1, =]\nenv: {ON: off}")
    manifest = only(text)
    assert manifest.spec.command == ("yes", "on", "NO", "2026-01-02", "12:30:45", "1_000", "http://x:1/a", "0b1", "=")
    assert manifest.spec.env == {"ON": "off"}


def test_anchors_and_aliases_work_within_a_document() -> None:
    manifest = only(manifest_text("command: [x]\nenv: {A: &v one, B: *v}"))
    assert manifest.spec.env == {"A": "one", "B": "one"}


def test_a_yaml_1_2_directive_is_accepted() -> None:
    assert only("# c\n%YAML 1.2\n---\n" + manifest_text("command: [x]")).metadata.name == "a"


def test_block_scalars_keep_tabs_and_anything_that_looks_like_markup() -> None:
    content = "all:\n\tcc -c x.c\n# %s *a &b {c}: ---\n  --- x\n"
    block = "".join(f"      {line}\n" for line in content.splitlines())
    text = manifest_text("command: [make]") + "  files:\n  - path: Makefile\n    content: |\n" + block
    assert only(text).spec.files[0].content == content


def test_all_errors_of_a_file_come_at_once_each_at_its_place() -> None:
    text = (
        manifest_text("command: [x]\nlimits:\n  memroy: 1Gi\n  memory: 512MB/s\n  pids: 0\ntimeout: 30\nfoo: 1")
        + "---\na: [b\nc: d\n---\nspec:\n\tx: 1\n---\n"
        + manifest_text("command: [x]", "Bad")
    )
    found = lines(text)
    assert found[0].startswith(
        'job.yml:8:5: spec.limits.memroy: unknown key "memroy"; did you mean memory? (allowed: cpu, '
    )
    assert found[1:] == [
        'job.yml:9:13: spec.limits.memory: "512MB/s" is not a size (use 512Mi, 512M or a number of bytes)',
        "job.yml:10:11: spec.limits.pids: 0 is out of range (1 to 4194304)",
        "job.yml:11:12: spec.timeout: 30 has no unit (use 30s, 5m, 1h30m or 500ms)",
        found[4],
        (
            "job.yml:15:2: a: not YAML: did not find expected ',' or ']',"
            " while parsing a flow sequence that begins in line 14"
        ),
        "job.yml:18:1: spec: a tab; indent with spaces",
        found[7],
    ]
    assert found[4].startswith('job.yml:12:3: spec.foo: unknown key "foo" (allowed: command, script, ')
    assert found[7].startswith('job.yml:23:9: metadata.name: "Bad" is not a name')
    assert [error.document for error in errors(text)] == [0, 0, 0, 0, 0, 1, 2, 3]


def test_a_missing_key_is_reported_at_the_mapping_that_lacks_it() -> None:
    assert lines("kind: Job\nspec: {command: [x]}\nmetadata: {}\n") == [
        "job.yml:1:1: apiVersion: is missing",
        "job.yml:3:1: metadata.name: is missing",
    ]


def test_errors_in_json_have_places_too() -> None:
    text = json.dumps(raw(command=["x"], limits={"memory": "1X", "cpuu": 1}), indent=2)
    found = lines(text, "job.json")
    assert found[0].startswith('job.json:12:17: spec.limits.memory: "1X" is not a size')
    assert found[1].startswith('job.json:13:7: spec.limits.cpuu: unknown key "cpuu"; did you mean cpu?')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', 'job.json:1:10: a: the key "a" is given twice (first in line 1)'),
        ('{"a": }', 'job.json:1:7: a: not JSON: expected a value, found "}"'),
        ('{"a": 1', 'job.json:1:8: not JSON: expected "," or "}", found the end'),
        ('{"a" 1}', 'job.json:1:6: not JSON: expected ":", found "1"'),
        ("{a: 1}", 'job.json:1:2: not JSON: expected a key in double quotes, found "a"'),
        ('{"a": "\\ud800"}', "job.json:1:7: a: holds half of a surrogate pair, which is not a character"),
        ('{"a": "x\ty"}', "job.json:1:9: a: not JSON: invalid control character"),
        ("[1] x", "job.json:1:5: not JSON: something follows the end of the document"),
        ("[" * 40, "job.json:1:33: " + "[0]" * 32 + ": nested more than 32 levels deep"),
        ("9" * 5000, "job.json:1:1: a number of 5000 digits is too long"),
        ("", "job.json:1:1: not JSON: expected a value, found the end"),
        ("null", "job.json:1:1: null is not a manifest"),
    ],
)
def test_faults_of_json(text: str, message: str) -> None:
    assert message in lines(text, "job.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1:1: holds no manifest"),
        ("# only a comment\n---\n...\n", "1:1: holds no manifest"),
        ("hello", '1:1: "hello" is not a manifest; it begins with apiVersion: joblet/v1'),
        ("- a", "1:1: a list is not a manifest; it begins with apiVersion: joblet/v1"),
        ("a: 1\na: 2\n", '2:1: a: the key "a" is given twice (first in line 1)'),
        ("a:\n\tb: 1", "2:1: a: a tab; indent with spaces"),
        ("a: *x", '1:4: a: "*x": there is no anchor &x before this place'),
        ("a: &x [1, *x]", '1:11: a[1]: "*x": the alias stands for something it is itself a part of'),
        ("a: !!python/object:os.system x", '1:4: a: "tag:yaml.org,2002:python/object:os.system": tags are not allowed'),
        ("1: x", "1:1: the key 1 is not text; write it in quotes"),
        ("? [a]\n: b", "1:3: a list cannot be a key; keys are text"),
        ("a: &x {b: c}\nd:\n  <<: *x", "3:3: d: merge keys (<<) are not part of YAML 1.2; write the keys out"),
        ("%YAML 1.1\n---\na: b", '1:1: "%YAML 1.1": a directive; only %YAML 1.2 is allowed'),
        ("%TAG ! x\n---\na: b", '1:1: "%TAG ! x": a directive; only %YAML 1.2 is allowed'),
        ("a: 0644", "1:4: a: 0644: a leading zero makes a number ambiguous"),
        ("a: " + "9" * 5000, "1:4: a: a number of 5000 digits is too long"),
        ("a: 'b", "not YAML: found unexpected end of stream"),
        ("a: b: c", "1:5: not YAML: mapping values are not allowed in this context"),
        ("a: " + "[" * 40, "nested more than 32 levels deep"),
        ('a: "\\q"', "1:5: a: not YAML: found unknown escape character"),
    ],
)
def test_faults_of_yaml(text: str, message: str) -> None:
    assert any(message in line for line in lines(text)), lines(text)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a: b\nc: \xff\n", "job.yml:2:4: not UTF-8: byte 0xff; save the file as UTF-8"),
        ("a: b\n".encode("utf-16"), "job.yml:1:1: not UTF-8: byte 0xff; save the file as UTF-8"),
        (b"a: x\x00\n", "job.yml:1:5: the character U+0000 is not allowed here"),
        (b"a: b\nb: \x1b[1m", "job.yml:2:4: the character U+001B is not allowed here"),
        (b"a: b\rb: c", "job.yml:1:5: the character U+000D is not allowed here"),
        ("a: x\u2028y".encode(), "job.yml:1:5: the character U+2028 is not allowed here"),
        ("a: x\u0085y".encode(), "job.yml:1:5: the character U+0085 is not allowed here"),
    ],
)
def test_bytes_that_are_no_text_are_refused_with_their_place(data: bytes, message: str) -> None:
    (line,) = lines(data)
    assert line.startswith(message)


def test_a_document_over_a_mebibyte_is_refused_and_one_below_is_not() -> None:
    def text(size: int) -> str:
        return manifest_text("command: [x]") + "  files:\n  - path: a\n    content: " + "x" * size + "\n"

    (manifest,) = read(text((1 << 20) - 300))
    assert len(manifest.spec.files[0].content or "") == (1 << 20) - 300
    assert lines("---\n" + text(1 << 20)) == ["job.yml:1:1: the document is larger than 1 MiB"]
    assert lines(json.dumps(raw(script="x" * (1 << 20))), "a.json") == ["a.json:1:1: the document is larger than 1 MiB"]


def test_more_than_a_thousand_documents_are_refused() -> None:
    def text(count: int) -> str:
        return "---\n".join(manifest_text("command: [x]", f"job-{number}") for number in range(count))

    assert len(read(text(1000))) == 1000
    (line,) = lines(text(1001))
    assert line == "job.yml:7000:1: more than 1000 documents in one file"


def test_one_name_twice_in_a_file_is_an_error() -> None:
    text = "---\n".join(manifest_text("command: [x]", name) for name in ("a", "b", "a"))
    assert lines(text) == ["job.yml:18:9: metadata.name: the job a is declared twice (first in line 4)"]


@pytest.mark.parametrize(
    "bomb",
    [
        "a: &a [x, x]\n"
        + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [" + f"*{chr(97 + i)}, " * 9 + "x]\n" for i in range(20)),
        "a: &a " + "x" * 10_000 + "\nb: [" + "*a, " * 1000 + "]",
        "[" * 500_000,
        "{" * 500_000,
        "- " * 500_000,
        "? " * 500_000,
        "a: [" + "x," * 500_000 + "]",
        "a: {" + "x," * 300_000 + "}",
        "{" + "".join(f"k{i}: v," for i in range(90_000)) + "}",
        "".join(f"k{i}: v\n" for i in range(90_000)),
        "spec: {command: [" + "1," * 90_000 + "]}",
        '"' + "\\u0041" * 150_000 + '"',
        "&a " * 300_000,
        "!a " * 300_000,
        "---\n" * 250_000,
        "a: |\n" + " \n" * 500_000,
        "%" * 1_000_000,
        "#" * 1_000_000 + "\n%" * 1000,
        "\n%" * 400_000,
        "a: '" + "\n" * 1_000_000,
    ],
    ids=range(20),
)
def test_a_bomb_is_refused_in_bounded_time(bomb: str) -> None:
    started = time.process_time()
    assert errors(bomb[: 1 << 20])
    assert time.process_time() - started < 5.0


def test_reading_a_small_manifest_takes_at_most_two_milliseconds() -> None:
    data = FULL.encode()
    read_manifests(data, filename="job.yml")
    best = float("inf")
    for _ in range(20):
        started = time.process_time()  # other tests run at the same time
        read_manifests(data, filename="job.yml")
        best = min(best, time.process_time() - started)
    assert best < 0.002


def test_importing_manifests_imports_no_yaml_library_and_nothing_of_the_daemon() -> None:
    program = "import sys, joblet.manifest; print(*sorted(m for m in sys.modules if m.split('.')[0] in %r))"
    heavy = ("yaml", "ruamel", "grpc", "asyncio", "typer", "rich", "jobletd", "cryptography", "watchfiles")
    done = subprocess.run([sys.executable, "-c", program % (heavy,)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
