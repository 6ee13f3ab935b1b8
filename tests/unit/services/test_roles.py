"""Every method of every service names the role that it needs, and callers get what their role allows."""

from __future__ import annotations

import pytest

from joblet.pki import Role
from jobletd.services.access import LOCAL_ROOT, NEEDED, AccessControl, check_complete
from jobletd.services.server import methods
from jobletd.tls_front import Identity

READING = {
    "Get",
    "List",
    "Watch",
    "Logs",
    "Events",
    "Indexes",
    "GetNode",
    "WatchUsage",
    "GetProfile",
    "GetLogLevel",
    "GetResource",
    "ListResources",
    "WatchResource",
    "Check",
    "ServerReflectionInfo",
}


def test_every_method_that_is_served_is_in_the_table_and_no_other() -> None:
    assert set(methods()) == set(NEEDED)
    check_complete(methods())


def test_a_viewer_may_read_and_nothing_else() -> None:
    allowed = {method.rpartition("/")[2] for method, role in NEEDED.items() if Role.VIEWER.includes(role)}
    assert allowed == READING
    assert {method.rpartition("/")[2] for method in NEEDED} - allowed == {
        "Apply",
        "Run",
        "Retry",
        "Cordon",
        "Uncordon",
        "Drain",
        "Delete",
        "DeleteResource",
        "FindMissing",
        "ListAttempts",
        "ReadAttemptLog",
        "FetchAttemptLog",
        "FenceAttempt",
        "ForgetAttempt",
        "Reload",
        "Report",
        "RetryWorkflow",
        "StopWorkflow",
        "SetLogLevel",
        "Stop",
        "SyncSource",
        "Upload",
    }


def test_the_host_that_hands_jobs_to_slurm_may_ask_about_those_and_nothing_else() -> None:
    allowed = {method for method, role in NEEDED.items() if Role.SLURM.includes(role)}
    assert allowed == {method for method in NEEDED if method.startswith("/joblet.v1.SlurmNodeService/")}
    assert all(Role.ADMIN.includes(role) for role in NEEDED.values())


def test_a_method_without_a_role_stops_the_start() -> None:
    with pytest.raises(AssertionError, match=r"/joblet\.v1\.JobService/New"):
        check_complete([*methods(), "/joblet.v1.JobService/New"])


def test_only_a_peer_without_a_name_is_root_and_unknown_ones_are_nobody() -> None:
    viewer = Identity("anna", Role.VIEWER, "127.0.0.1:1")
    access = AccessControl({"unix:/run/peers/1": viewer}.get)
    assert access.identify("unix:/run/peers/1") is viewer
    assert access.identify("unix:") is LOCAL_ROOT
    for peer in ("unix:/run/peers/2", "unix:/tmp/x", "unix:%2F", "unix-abstract:x", "ipv4:127.0.0.1:1", ""):
        assert access.identify(peer) is None
