"""``python -m tests.hostile NAME``: an attack as the tests apply it, to try it by hand: ``... mounts | rnx apply -f -``.

What on the host it is after is made up here; an attack finds nothing of that kind then.
"""

from __future__ import annotations

import os
import sys

from tests.hostile.attack import attacks

TARGETS = {
    **{"ROOT": "/opt/joblet", "DIRECTORY": "/var/tmp", "CANARY": "/var/tmp/canary", "SECRET": "/etc/hostname"},
    **{"TCP": "22", "TCP6": "22", "SOCKET": "/run/dbus/system_bus_socket", "ABSTRACT": "nobody"},
    **{"GRPC": "50051", "GRPC_SOCKET": "/run/joblet/joblet.sock", "PIDS": str(os.getpid())},
}


def main() -> int:
    found = {attack.path.stem: attack for attack in attacks()}
    if len(sys.argv) != 2 or sys.argv[1] not in found:
        print(f"usage: python -m tests.hostile NAME\nNAME: {', '.join(found)}", file=sys.stderr)
        return 2
    print(found[sys.argv[1]].manifest(TARGETS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
