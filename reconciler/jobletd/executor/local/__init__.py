"""The local executor: attempts on this host, through the launcher."""

from jobletd.executor.local.executor import LocalExecutor
from jobletd.executor.local.settings import LocalSettings

__all__ = ["LocalExecutor", "LocalSettings"]
