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
import structlog
import trio

from shared.errors import StoreDamaged, StoreError, StoreFull
from shared.store.environment import as_store_error, open_environment, write_error

log = structlog.get_logger()

MAP_SIZE = 1 << 36
"""64 GiB of address space; the file is as long as what is in it."""

Write = tuple[bytes, bytes | None]
"""A key and its new value; None deletes."""


class _Pending:
    """Writes of one caller; one who does not wait for them has them tried again with the next commit."""

    __slots__ = ("done", "error", "waited", "writes")

    def __init__(self, writes: tuple[Write, ...], waited: bool) -> None:
        self.writes = writes
        self.waited = waited
        self.done = trio.Event()
        self.error: StoreError | None = None


class Index:
    """Reads are immediate; writes are committed by :meth:`run`, in order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._env = open_environment(path, MAP_SIZE)
        except StoreDamaged as error:
            raise self._damaged(error) from None
        self._queue: list[_Pending] = []
        self._unwritten: dict[bytes, bytes | None] = {}
        self._filled = trio.Event()
        self._stopped = False

    async def run(self) -> None:
        """Commit what is written, until :meth:`stop` and everything is committed.

        Being cancelled is not heard: someone who is shielded may still wait for a write.
        """
        with trio.CancelScope(shield=True):
            while True:
                if self._queue:
                    await self._commit_queue()
                elif self._stopped:
                    return
                else:
                    self._filled = trio.Event()
                    await self._filled.wait()

    def stop(self) -> None:
        """No more writes will come."""
        self._stopped = True
        self._filled.set()

    def write_later(self, *writes: Write) -> None:
        """Queue writes. What cannot be written (a full disk) is tried again with the next commit."""
        if writes and not self._stopped:
            self._add(_Pending(writes, waited=False))

    async def write(self, *writes: Write) -> None:
        """Write and wait for the commit. Raises StoreFull or StoreError. A cancelled wait does not undo it."""
        if self._stopped:
            raise StoreError("the store is closed")
        pending = _Pending(writes, waited=True)
        self._add(pending)
        await pending.done.wait()
        if pending.error is not None:
            raise pending.error

    def get(self, key: bytes) -> bytes | None:
        """A copy of a value. Raises StoreError."""
        try:
            with self._env.begin() as txn:
                value: bytes | None = txn.get(key)
                return value
        except lmdb.Error as error:
            raise self._unreadable(error) from None

    def items(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All (key without prefix, value) whose key begins with ``prefix``. Raises StoreError."""
        try:
            with self._env.begin() as txn, txn.cursor() as cursor:
                found = cursor.set_range(prefix)
                while found and cursor.key().startswith(prefix):
                    yield cursor.key()[len(prefix) :], cursor.value()
                    found = cursor.next()
        except lmdb.Error as error:
            raise self._unreadable(error) from None

    def close(self) -> None:
        """Close the environment; the writer must have ended."""
        self._env.close()

    def _add(self, pending: _Pending) -> None:
        self._queue.append(pending)
        self._filled.set()

    async def _commit_queue(self) -> None:
        batch, self._queue = self._queue, []
        writes = dict(self._unwritten)
        for pending in batch:
            writes.update(pending.writes)
        error = await trio.to_thread.run_sync(self._commit, writes)
        if error is None:
            self._unwritten.clear()
        else:
            log.warning("the store's index cannot be written", cause=str(error))
        for pending in batch:
            if error is not None and not pending.waited:
                self._unwritten.update(pending.writes)
            pending.error = error
            pending.done.set()

    def _commit(self, writes: dict[bytes, bytes | None]) -> StoreError | None:
        """One transaction, begun and committed in this thread."""
        try:
            with self._env.begin(write=True) as txn:
                for key, value in writes.items():
                    if value is None:
                        txn.delete(key)
                    else:
                        txn.put(key, value)
        except lmdb.MapFullError:
            return StoreFull("the index of the store is full: remove content with `dragonet rm`")
        except lmdb.Error as error:
            size = sum(len(value or b"") for value in writes.values())
            return write_error(error, self._path.parent, size)
        return None

    def _unreadable(self, error: lmdb.Error) -> StoreError:
        found = as_store_error(error)
        return self._damaged(found) if isinstance(found, StoreDamaged) else found

    def _damaged(self, error: StoreError) -> StoreDamaged:
        return StoreDamaged(
            f"the index {self._path} is damaged ({error}): remove the folder {self._path.parent}; "
            "its content will be fetched again"
        )
