"""``joblet restore --service``: systemd's unit is stopped before and started after. If it does not get ready on what was put
back, all is again as it was, and it runs on that.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

from joblet.errors import JobletError
from jobletd.backup.errors import BackupError
from jobletd.backup.making import UNIT
from jobletd.backup.restoring import Restored, take_back


def restore_with_service(put_back: Callable[[], Restored]) -> Restored:
    """Raises JobletError or OSError; the unit runs then on what was there before."""
    if not os.path.isdir("/run/systemd/system"):  # sd_booted(3)
        todo = "without it: stop the daemon, joblet restore FILE, start it"
        raise BackupError("systemd does not run here", where="joblet restore --service", todo=todo)
    _systemctl("stop", UNIT)
    try:
        restored = put_back()
    except (JobletError, OSError):
        _start()
        raise
    try:
        _start()
    except BackupError as error:
        _systemctl("stop", UNIT)
        take_back(restored)
        _start()
        raise BackupError(
            "the daemon does not start on what was put back; all is again as it was, and it runs on that",
            where=restored.config,
            todo=f"journalctl -u {UNIT} says why",
        ) from error
    return restored


def _start() -> None:
    """Until it is ready. What was put back may have other units, and earlier failures do not count."""
    _systemctl("daemon-reload")
    _systemctl("reset-failed", UNIT, check=False)  # of one that is not loaded there are none
    _systemctl("start", UNIT)


def _systemctl(*arguments: str, check: bool = True) -> None:
    """Raises BackupError."""
    command = " ".join(("systemctl", *arguments))
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode:
        said = done.stderr.strip().partition("\n")[0]
        raise BackupError(f"ended with {done.returncode}: {said}", where=command, todo=f"journalctl -u {UNIT} says why")
