"""Tasks and pieces on disk, in LMDB: an index, and one environment per task.

Names are imported when they are used: the command line reads ``StoreConfig`` and must not load LMDB for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.store.config import StoreConfig
    from shared.store.records import StoredTask
    from shared.store.store import Store, StoreStatistics
    from shared.store.task import TaskContent

__all__ = ["Store", "StoreConfig", "StoreStatistics", "StoredTask", "TaskContent"]

_HOMES = {
    "Store": "shared.store.store",
    "StoreConfig": "shared.store.config",
    "StoreStatistics": "shared.store.store",
    "StoredTask": "shared.store.records",
    "TaskContent": "shared.store.task",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
