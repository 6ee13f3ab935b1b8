"""What must not be lost: jobs, generations, runs, attempts, events, in SQLite."""

from jobletd.store.migrations import StoreError
from jobletd.store.store import Store

__all__ = ["Store", "StoreError"]
