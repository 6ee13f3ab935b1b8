"""nft(8): for each change of the rules, now and then to see whether they still hold, never for a launch."""

from __future__ import annotations

import asyncio
import shutil

from jobletd.executor.local.networking.errors import NetworkUnavailable

PATH = "/usr/sbin:/sbin:/usr/bin:/bin"


async def load(text: str) -> None:
    """Make these rules hold, all or none. Raises NetworkUnavailable."""
    status, errors = await _nft("-f", "-", given=text)
    if status:
        why = errors.strip().partition("\n")[0]
        raise NetworkUnavailable(
            f"the packet filter refuses the rules: {why}",
            todo="the kernel needs nf_tables with bridge, inet, nat and reject: load or build these modules",
        )


async def holds(table: str) -> bool:
    """Whether both our tables are there. Raises NetworkUnavailable."""
    for family in ("inet", "bridge"):
        status, _ = await _nft("-t", "list", "table", family, table)
        if status:
            return False
    return True


async def _nft(*arguments: str, given: str = "") -> tuple[int, str]:
    """Its exit status and what it says on standard error."""
    program = shutil.which("nft", path=PATH)
    if program is None:
        raise NetworkUnavailable("there is no nft on this host", todo="install the package nftables")
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": PATH, "LC_ALL": "C"},
    )
    try:
        _, errors = await process.communicate(given.encode())
    finally:
        if process.returncode is None:
            # Whoever waited goes on, and may load other rules: these are not to come after them.
            process.kill()
            await process.wait()
    return process.returncode or 0, errors.decode(errors="replace")
