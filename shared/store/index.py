"""The index: one LMDB environment with a record per task and the contents of small ones.

Writes are gathered: whoever writes while a commit runs is part of the next one, so that many small
tasks cost few fsyncs. Commits are durable, so the index survives a crash of the machine intact.

Keys: ``t`` + task id: the record; ``i`` + task id: digest (32 bytes) and content of an inline task;
``m`` + name: the store's own settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import lmdb
import trio

from shared.errors import StoreDamaged, StoreError, StoreFull

MAP_SIZE = 1 << 36
"""64 GiB of address space; the file is as long as what is in it."""

Write = tuple[bytes, bytes | None]
"""A key and its new value; None deletes."""


class _Pending:
    __slots__ = ("done", "error", "writes")

    def __init__(self, writes: list[Write]) -> None:
        self.writes = writes
        self.done = trio.Event()
        self.error: StoreError | None = None


class Index:
    """Reads are immediate; writes are committed by :meth:`run`, in order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._env = lmdb.open(
                str(path), subdir=False, map_size=MAP_SIZE, metasync=False, meminit=False, max_readers=512
            )
        except lmdb.Error as error:
            if "No space left" in str(error):
                raise full("disk") from None
            raise StoreDamaged(
                f"{path} cannot be opened ({error}): if it is damaged, remove the folder {path.parent}; "
                "its content will be fetched again"
            ) from None
        self._queue: list[_Pending] = []
        self._filled = trio.Event()

    async def run(self) -> None:
        """Commit what is written, until cancelled; what is queued by then is committed still."""
        try:
            while True:
                while not self._queue:
                    self._filled = trio.Event()
                    await self._filled.wait()
                await self._commit_queue()
        finally:
            with trio.CancelScope(shield=True):
                await self._commit_queue()

    def write_later(self, *writes: Write) -> None:
        """Queue writes; an error is dropped, the next write of the record brings it again."""
        self._add(list(writes))

    async def write(self, *writes: Write) -> None:
        """Write and wait for the commit. Raises StoreFull or StoreError. A cancelled wait does not undo it."""
        pending = self._add(list(writes))
        await pending.done.wait()
        if pending.error is not None:
            raise pending.error

    def get(self, key: bytes) -> bytes | None:
        """A copy of a value."""
        with self._env.begin() as txn:
            return txn.get(key)

    def items(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All (key without prefix, value) whose key begins with ``prefix``."""
        with self._env.begin() as txn, txn.cursor() as cursor:
            found = cursor.set_range(prefix)
            while found and cursor.key().startswith(prefix):
                yield cursor.key()[len(prefix) :], cursor.value()
                found = cursor.next()

    def close(self) -> None:
        """Close the environment; the writer must have ended."""
        self._env.close()

    def _add(self, writes: list[Write]) -> _Pending:
        pending = _Pending(writes)
        self._queue.append(pending)
        self._filled.set()
        return pending

    async def _commit_queue(self) -> None:
        batch, self._queue = self._queue, []
        if not batch:
            return
        error = await trio.to_thread.run_sync(self._commit, [p.writes for p in batch])
        for pending in batch:
            pending.error = error
            pending.done.set()

    def _commit(self, batches: list[list[Write]]) -> StoreError | None:
        """One transaction, begun and committed in this thread."""
        try:
            with self._env.begin(write=True) as txn:
                for writes in batches:
                    for key, value in writes:
                        if value is None:
                            txn.delete(key)
                        else:
                            txn.put(key, value)
        except lmdb.Error as error:
            return as_store_error(error)
        return None


def full(what: str) -> StoreFull:
    """The error for a full ``disk``, ``quota`` or ``map``, in words."""
    words = {
        "disk": "the disk of the data folder is full, and evicting unpinned content did not make room: free disk "
        "space, or give --data-dir a folder on a larger disk",
        "quota": "the store's quota is full, and evicting unpinned content did not make room: raise store.quota, "
        "or remove content with `dragonet rm`",
        "map": "the content is longer than the store may map for it: raise store.max_map",
    }
    return StoreFull(words[what])


def as_store_error(error: lmdb.Error) -> StoreError:
    """LMDB's errors as ours."""
    if isinstance(error, lmdb.MapFullError):
        return full("map")
    if isinstance(error, lmdb.DiskError) or "No space left" in str(error):
        return full("disk")
    return StoreError(f"the store cannot write: {error}")
