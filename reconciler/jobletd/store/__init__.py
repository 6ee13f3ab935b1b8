"""What must not be lost: jobs, generations, runs, attempts, events, in SQLite."""

from jobletd.store.errors import StoreDamaged, StoreError, StoreFull
from jobletd.store.store import Store

__all__ = ["Store", "StoreDamaged", "StoreError", "StoreFull"]
