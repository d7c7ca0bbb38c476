"""Tasks and pieces on disk, in LMDB: an index, and one environment per task."""

from shared.store.config import StoreConfig
from shared.store.records import StoredTask
from shared.store.store import Store, StoreStatistics
from shared.store.task import TaskContent

__all__ = ["Store", "StoreConfig", "StoreStatistics", "StoredTask", "TaskContent"]
