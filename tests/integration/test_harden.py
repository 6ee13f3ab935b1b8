"""The script of joblet harden, run for real on a host whose /etc, packet filter and /proc/sys are a copy of this one's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.integration.host import PATIENCE
from tests.integration.joblet_command import joblet

# In namespaces of its own: the script's work is gone with them. The kernel's settings would be those of the real host: sealed.
STAGE = """
set -eu
mount --make-rprivate /
cp -a /etc "$1/etc"
mount --bind "$1/etc" /etc
mount -t tmpfs none /run
mount --bind -o ro /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
ip link set lo up
tree() { find /etc "$1/h" -printf '%p %m %u %T@ %i\\n' | sort; }
chmod 644 "$1/h/config/rnx-config-viewer.yml"
chmod 777 "$1/h/spool"
echo FIRST
sh "$1/harden.sh" 2>&1
ufw --force enable
ufw status verbose
tree "$1" >"$1/before"
echo SECOND
sh "$1/harden.sh" 2>&1
tree "$1" >"$1/after"
echo DIFFERENCES
diff "$1/before" "$1/after" || true
echo END
stat -c '%a' "$1/h/config/rnx-config-viewer.yml" "$1/h/spool"
ls /etc/sysctl.d/60-joblet.conf /etc/fail2ban/filter.d/joblet.conf /etc/fail2ban/jail.d/joblet.conf
fail2ban-client -d | grep -c "'joblet', 'addfailregex'"
"""


@pytest.mark.native_only(reason="user-mode Linux as Debian builds it has no nf_tables, which ufw needs")
def test_it_does_what_it_says_and_the_second_time_nothing(tmp_path: Path) -> None:
    root = tmp_path / "h"
    assert joblet("init", "--root", root, "--address", "192.0.2.1", "--port", "50123").status == 0
    config = root / "config/joblet-config.yml"
    config.write_text(config.read_text().replace("format: text", f"format: text\n  output: {root}/joblet.log"))
    printed = joblet("harden", "--print", "--allow-from", "198.51.100.0/24", "--config", config)
    assert printed.status == 0, printed.err
    (tmp_path / "harden.sh").write_text(printed.out)
    command = ["unshare", "--mount", "--net", "sh", "-c", STAGE, "stage", str(tmp_path)]
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=100 * PATIENCE, check=False, env={**os.environ, "PATH": path}
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    first, second = ended.stdout.partition("SECOND\n")[::2]
    assert "rnx-config-viewer.yml has mode 600 now" in first and f"writes to {root}/spool now" in first
    assert "wrote /etc/sysctl.d/60-joblet.conf" in first and "not all of these settings were taken" in first
    assert "50123/tcp" in first and "198.51.100.0/24" in first and "10.213.0.0/16" in first
    again, _, rest = second.partition("DIFFERENCES\n")
    assert "wrote" not in again and "now" not in again and "Skipping adding existing rule" in again
    differences, _, end = rest.partition("END\n")
    assert differences == ""
    assert end.split() == [
        *("600", "755", "/etc/fail2ban/filter.d/joblet.conf", "/etc/fail2ban/jail.d/joblet.conf"),
        *("/etc/sysctl.d/60-joblet.conf", "1"),
    ]
