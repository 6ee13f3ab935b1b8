"""The same attacks with the seccomp filter off: what is behind it holds by itself all that reaches beyond the job."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.hostile.attack import Attack, attacks, verdict_of
from tests.hostile.attempts import FILTER
from tests.hostile.meanwhile import MEANWHILE
from tests.hostile.street import Street, street

FAMILIES = {
    *("cgroups", "devices", "executables", "host-files", "identity", "kernel-settings", "kernel-surface", "mounts"),
    *("signals-and-tracing", "sockets"),
}
# What the filter alone refuses: kernel code with a history, and calls whose arguments here do nothing. None of it is a way out.
FILTER_ALONE = {
    *("bpf", "perf", "userfaultfd", "io-uring", "fanotify", "add-key", "request-key", "keyctl", "move-pages"),
    *("packet-socket", "crypto-socket", "vsock-socket", "bluetooth-socket", "x32-call", "i386-call", "i386-mount"),
    *("new-user-namespace", "new-everything-by-clone", "new-user-namespace-by-clone3", "enter-own-namespace"),
    *("into-cgroup-by-clone3", "type-into-terminal", "type-into-console", "adjust-clock", "quota"),
    "disable-randomisation",
    "kernel-log",  # where kernel.dmesg_restrict is 0
}


def allow_unconfined(configuration: dict[str, Any]) -> None:
    configuration.setdefault("isolation", {})["allowUnconfined"] = True


@pytest.fixture(scope="module")
def lenient() -> Iterator[Street]:
    with street(allow_unconfined) as made:
        yield made


@pytest.mark.parametrize(
    "attack", [attack for attack in attacks() if attack.name in FAMILIES], ids=lambda attack: attack.path.stem
)
def test_without_the_filter_the_layers_behind_it_hold(lenient: Street, attack: Attack) -> None:
    state = lenient.state()
    lenient.host.apply(attack.manifest(lenient.targets, seccomp="unconfined"), filename=attack.path.name)
    MEANWHILE[attack.meanwhile](lenient, attack)
    run = lenient.host.finished(attack.name, within=60)
    output = lenient.host.log(attack.name, stream="").decode(errors="replace")
    verdict = verdict_of(output)
    print("\n".join(f"let through {name}: {what}" for name, what in verdict.broke.items()))
    assert run.phase == "COMPLETED", output
    assert output.startswith(f"{FILTER}0\n")
    assert verdict.broke.keys() <= FILTER_ALONE
    assert verdict.held.keys() | verdict.broke.keys() == attack.attempts.keys()
    lenient.victim_is_well()
    assert lenient.strangers() == []
    assert lenient.state() == state


def test_there_is_a_filter_to_take_off() -> None:
    names = {name for attack in attacks() if attack.name in FAMILIES for name in attack.attempts}
    assert names >= FILTER_ALONE
