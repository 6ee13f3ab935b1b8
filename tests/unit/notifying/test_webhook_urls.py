"""Which URLs are webhooks, and which of them a configuration allows."""

from __future__ import annotations

import pytest

from joblet.manifest import HookEvent, JobManifest, ManifestErrors, jobs_of, read_manifests
from joblet.manifest.webhook_url import check_prefix, check_webhook, is_allowed, parse_webhook
from jobletd.policy import NotAllowed, Policy

HOOKS = ("https://hooks.example.org/joblet", "http://127.0.0.1:8080", "https://[::1]:9000/a/")


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://hooks.example.org/joblet", True),
        ("https://hooks.example.org/joblet/x?token=1", True),
        ("https://HOOKS.example.org/joblet/x", True),
        ("https://hooks.example.org:443/joblet", True),
        ("http://127.0.0.1:8080/any/path", True),
        ("http://127.0.0.1:8080", True),
        ("https://[::1]:9000/a/b", True),
        ("https://[::1]:9000/b", False),
        ("https://hooks.example.org/jobletx", False),
        ("https://hooks.example.org/", False),
        ("http://hooks.example.org/joblet", False),
        ("https://hooks.example.org:8443/joblet", False),
        ("https://hooks.example.org.evil.example/joblet", False),
        ("http://127.0.0.1:80801/", None),
        ("http://127.0.0.1:8081/", False),
        ("http://169.254.169.254/latest", False),
    ],
)
def test_a_url_is_allowed_if_scheme_host_port_and_path_are(url: str, allowed: bool | None) -> None:
    if allowed is None:
        with pytest.raises(ValueError, match="makes no sense"):
            parse_webhook(url)
    else:
        assert is_allowed(url, HOOKS) is allowed
    assert not is_allowed("https://hooks.example.org/joblet", ())


@pytest.mark.parametrize(
    "url",
    [
        "https://user:pass@hooks.example.org/",
        "https://hooks.example.org/joblet/../admin",
        "https://hooks.example.org/joblet/%2E%2e/admin",
        "https://hooks.example.org/./joblet",
        "https://hooks.example.org/#part",
        "https://hooks.example.org/a b",
        "https://hooks.example.org/a\r\nHost: x",
        "https://hooks.example.org/a\n",
        "https://hooks.example.org?x",
        "ftp://hooks.example.org/",
        "file:///etc/passwd",
        "https:///x",
        "https://[::1/x",
        "https://h\u00f6st.example/",
        "https://hooks.example.org/" + "a" * 2000,
        7,
    ],
)
def test_what_is_no_plain_url_is_refused_without_being_shown(url: object) -> None:
    with pytest.raises(ValueError, match=r"URL|path|text") as found:
        check_webhook(url)
    assert str(url) not in str(found.value)


def test_the_configuration_allows_paths_and_no_queries() -> None:
    assert check_prefix(HOOKS[0]) == HOOKS[0]
    with pytest.raises(ValueError, match="query"):
        check_prefix("https://hooks.example.org/?a=1")


def job(notify: str) -> JobManifest:
    text = f"apiVersion: joblet/v1\nkind: Job\nmetadata: {{name: a}}\nspec:\n  command: [x]\n  notify: {notify}\n"
    (manifest,) = jobs_of(read_manifests(text.encode(), filename="job.yml"))
    return manifest


def test_a_hook_is_read_as_it_is_written() -> None:
    manifest = job("[{on: [Failed, TimedOut], webhook: 'https://hooks.example.org/x', sign: {name: key}}]")
    (hook,) = manifest.spec.notify
    assert hook.on == (HookEvent.FAILED, HookEvent.TIMED_OUT)
    assert hook.sign is not None and (hook.sign.name, hook.sign.key) == ("key", None)


@pytest.mark.parametrize(
    ("notify", "message"),
    [
        ("[{on: [Failed]}]", "says nothing to do"),
        ("[{on: [Failed], webhook: 'https://a/', command: [x]}]", "has both webhook and command"),
        ("[{on: [Failed], command: [x], sign: {name: k}}]", "only requests to a webhook are signed"),
        ("[{on: [], command: [x]}]", "the list is empty"),
        ("[{on: [Faled], command: [x]}]", "did you mean Failed?"),
        ("[{on: [Failed], webhook: 'http://a@b/'}]", "is no URL of a webhook"),
    ],
)
def test_a_hook_that_makes_no_sense_is_refused(notify: str, message: str) -> None:
    with pytest.raises(ManifestErrors, match=message.replace("?", r"\?")):
        job(notify)


def test_a_job_may_name_only_what_the_configuration_allows() -> None:
    wanted = job("[{on: [Failed], webhook: 'https://hooks.example.org/joblet/secret-path?token=1'}]")
    with pytest.raises(NotAllowed, match=r"this URL of https://hooks.example.org is not allowed") as found:
        Policy().check(wanted)
    assert "secret-path" not in str(found.value)
    Policy(webhooks=HOOKS).check(wanted)
