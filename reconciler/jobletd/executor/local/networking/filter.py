"""nft(8), once for each change of the rules and never for a launch."""

from __future__ import annotations

import asyncio
import shutil

from jobletd.executor.local.networking.errors import NetworkUnavailable

PATH = "/usr/sbin:/sbin:/usr/bin:/bin"


async def load(text: str) -> None:
    """Make these rules hold, all or none. Raises NetworkUnavailable."""
    program = shutil.which("nft", path=PATH)
    if program is None:
        raise NetworkUnavailable("there is no nft on this host", todo="install the package nftables")
    process = await asyncio.create_subprocess_exec(
        program,
        "-f",
        "-",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": PATH, "LC_ALL": "C"},
    )
    _, errors = await process.communicate(text.encode())
    if process.returncode:
        why = errors.decode(errors="replace").strip().partition("\n")[0]
        raise NetworkUnavailable(
            f"the packet filter refuses the rules: {why}",
            todo="the kernel needs nf_tables with bridge, inet, nat and reject: load or build these modules",
        )
