"""The store: tasks and their pieces on this machine's disk, within a quota, across restarts and kills.

A content is open while someone uses it, and only then; what is in use or pinned is never evicted. What
takes no time (records, accounting, taking a file out of the way) is done at once, without a checkpoint
in between, so that no two tasks of the process can see it half done; what takes time runs in threads.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog
import trio

from shared.errors import InvalidRequest, StoreDamaged, StoreError, StoreFull, TaskNotFound
from shared.nursery import open_nursery
from shared.protocol import TaskMeta
from shared.store.config import StoreConfig
from shared.store.content import discard, unlink_all
from shared.store.index import Index
from shared.store.ledger import Ledger
from shared.store.loading import load_records, open_pieces
from shared.store.lock import boot_id, lock_folder
from shared.store.records import INLINE_LIMIT, StoredTask, TaskRecord, encode_record
from shared.store.task import Contradiction, TaskContent
from shared.task.identity import TaskSpec

log = structlog.get_logger()

WRITERS = 4
"""Worker threads that verify and write pieces at once."""
FLUSH_INTERVAL = 5.0
"""Seconds between writes of last-access times."""

T = TypeVar("T")
_TASK_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """``used`` bytes of content, ``quota`` (0: none), numbers of tasks, of open ones, of evicted ones."""

    used: int
    quota: int
    tasks: int
    open: int
    evicted: int


class Store:
    """Open it with ``async with Store.open(...)``. One process at a time per folder."""

    def __init__(
        self,
        folder: Path,
        config: StoreConfig,
        index: Index,
        records: dict[str, TaskRecord],
        nursery: trio.Nursery,
        clock: Callable[[], float],
    ) -> None:
        self.on_removed: list[Callable[[str], None]] = []
        """Called with the id of each task that was removed or evicted."""
        self.on_pressure: list[Callable[[], Awaitable[None]]] = []
        """Called when nothing more can be evicted, before that is an error: give up uses that nobody needs
        just now."""
        self.writers = trio.CapacityLimiter(WRITERS)
        self._content = folder / "content"
        self._config = config
        self._index = index
        self._nursery = nursery
        self._clock = clock
        self._books = Ledger(self._content, config, records, clock)
        self._dirty: set[str] = set()
        self._evicted = 0

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        data_dir: Path,
        config: StoreConfig,
        *,
        clock: Callable[[], float] = time.time,
        boot: Callable[[], str] = boot_id,
    ) -> AsyncIterator[Store]:
        """The store in ``data_dir``, made if need be.

        ``clock`` gives seconds since the epoch, ``boot`` the id of the machine's boot. Raises StoreLocked
        when another process has the folder, StoreDamaged, StoreFull.
        """
        lock = await trio.to_thread.run_sync(lock_folder, data_dir)
        try:
            index = await trio.to_thread.run_sync(Index, data_dir / "index.mdb")
            try:
                records = await trio.to_thread.run_sync(
                    load_records, data_dir / "content", index, boot(), config.max_map
                )
                async with open_nursery() as writing:
                    writing.start_soon(index.run)
                    try:
                        async with open_nursery() as working:
                            store = cls(data_dir, config, index, records, working, clock)
                            working.start_soon(store._finish_durability)
                            working.start_soon(store._keep_house)
                            try:
                                yield store
                            finally:
                                working.cancel_scope.cancel()
                        store._flush()
                    finally:
                        index.stop()
            finally:
                index.close()
        finally:
            os.close(lock)

    # --- looking ---------------------------------------------------------------------------------------

    def tasks(self) -> list[StoredTask]:
        """All tasks of which something is known here."""
        return [task for task_id in list(self._books.records) if (task := self._books.view(task_id))]

    def ids(self) -> list[str]:
        """The ids of all tasks of which something is known here: much cheaper than :meth:`tasks`."""
        return list(self._books.records)

    def get(self, task_id: str) -> StoredTask | None:
        """One task, None when it is not here."""
        return self._books.view(task_id)

    def statistics(self) -> StoreStatistics:
        """How full the store is."""
        books = self._books
        return StoreStatistics(
            books.used, self._config.quota, len(books.records), len(books.open), self._evicted
        )

    async def digests(self, task_id: str) -> dict[int, bytes] | None:
        """The digests of all pieces held of a task; None when it is not here. Does not count as access."""
        try:
            content = await self._opened(task_id, None, None)
        except (TaskNotFound, StoreError):
            return None
        try:
            return dict(content.digests)
        finally:
            self.release(content)

    # --- using -----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def use(self, task_id: str) -> AsyncIterator[TaskContent]:
        """A stored task for the time of the context, in which it is not evicted.

        Raises TaskNotFound, StoreError.
        """
        content = await self._opened(task_id, None, None)
        self._books.touch(content)
        try:
            yield content
        finally:
            self._books.touch(content)
            self.release(content)

    @asynccontextmanager
    async def create(
        self, spec: TaskSpec, meta: TaskMeta, task_id: str | None = None
    ) -> AsyncIterator[TaskContent]:
        """The task in this version, for the time of the context; new, or with what is held of it.

        Another version that is held is removed first; who reads it may finish. A task of which nothing
        is held at the end leaves no trace. Raises StoreFull when there is no room for it, StoreError.
        """
        content = await self._opened(task_id or spec.task_id, spec, meta)
        self._books.touch(content)
        try:
            yield content
        finally:
            self._books.touch(content)
            self.release(content)

    async def remove(self, task_id: str) -> None:
        """Remove a task; whoever reads it now may finish. Unknown ones are fine."""
        async with self._turn(task_id):
            await self._unlink(self._forget([task_id]))

    async def set_pin(self, task_id: str, pinned: bool) -> None:
        """Keep a task from being evicted, or no longer. Raises TaskNotFound, StoreError."""
        record = self._books.records.get(task_id)
        if record is None:
            raise TaskNotFound("this host holds nothing of the task")
        record.pinned = pinned
        await self._index.write((b"t" + task_id.encode(), encode_record(record)))

    def supersede(self, task_id: str) -> None:
        """The source has other content now: this goes first when room is needed. Unknown ones are fine."""
        record = self._books.records.get(task_id)
        if record is not None and not record.superseded:
            record.superseded = True
            self._dirty.add(task_id)

    # --- for TaskContent -------------------------------------------------------------------------------

    def release(self, content: TaskContent) -> None:
        """One use of a content ended; the last one closes it."""
        content.users -= 1
        if content.users:
            return
        content.close()
        if content.dropped:
            return
        del self._books.open[content.task_id]
        self._books.note(content)
        record = content.record
        if record.held or record.complete or record.pinned:
            self._dirty.add(content.task_id)
        else:
            unlink_all(self._forget([content.task_id], tell=False))  # tiny, and gone when it is next made

    def save(self, content: TaskContent) -> None:
        """The record changed: write it soon."""
        if not content.dropped:
            self._books.note(content)
            self._index.write_later((b"t" + content.task_id.encode(), encode_record(content.record)))

    def completed(self, content: TaskContent) -> None:
        """All pieces are held: make them durable in the background, then say so in the index."""
        if content.record.inline:
            content.record.durable = True  # as its content is, since the index was written
        self.save(content)
        if not content.dropped and not content.record.durable:
            self._retain(content)
            self._nursery.start_soon(self._make_durable, content)

    async def write_inline(self, key: bytes, value: bytes | None) -> None:
        """Commit an inline content. Raises StoreFull, StoreError."""
        with trio.CancelScope(shield=True):
            await self._index.write((key, value))

    def gained(self, size: int) -> None:
        """So many bytes more are held."""
        self._books.gained(size)

    @asynccontextmanager
    async def room(self, content: TaskContent, size: int) -> AsyncIterator[None]:
        """Evict until ``size`` bytes more fit, and keep that room while they are written.

        Raises StoreFull, naming what is full.
        """
        trash: list[Path] = []
        if not self._books.fits(size):
            trash = await self._chosen(partial(self._books.for_piece, size))
        self._books.coming(content, size)
        try:
            await self._unlink(trash)
            yield
        finally:
            self._books.coming(content, -size)

    async def evict(self, size: int) -> bool:
        """Evict unpinned, unused content for ``size`` bytes; whether there was enough of it."""
        chosen = self._books.for_room(size)
        if not chosen:
            await self._relieve()
            chosen = self._books.for_room(size)
        await self._unlink(self._evict(chosen))
        return bool(chosen)

    # --- opening ---------------------------------------------------------------------------------------

    async def _opened(self, task_id: str, spec: TaskSpec | None, meta: TaskMeta | None) -> TaskContent:
        async with self._turn(task_id):
            record = self._books.records.get(task_id)
            if record is not None and meta is not None and not _same_content(record.meta, meta):
                await self._unlink(self._forget([task_id]))
                record = None
            content = None if record is None else await self._reopened(task_id, record, meta)
            if content is None:
                if spec is None or meta is None:
                    raise TaskNotFound("this host holds nothing of the task")
                content = await self._created(task_id, spec, meta)
            content.users += 1
            return content

    async def _reopened(self, task_id: str, record: TaskRecord, meta: TaskMeta | None) -> TaskContent | None:
        """The content of a known task; None when it is damaged, or contradicts ``meta``, and was dropped."""
        try:
            content = self._books.open.get(task_id)
            if content is None:
                content = await trio.to_thread.run_sync(self._load_content, task_id, record)
                self._books.opened(content)
            if meta is not None and meta != record.meta:
                content.adopt(meta)
                self.save(content)
        except (StoreDamaged, Contradiction) as error:
            log.warning("a stored content is dropped", task=task_id, cause=str(error))
            unused = self._books.open.get(task_id)
            trash = self._forget([task_id])
            if unused is not None and not unused.users:
                unused.close()
            await self._unlink(trash)
            return None
        return content

    async def _created(self, task_id: str, spec: TaskSpec, meta: TaskMeta) -> TaskContent:
        if not _TASK_ID.fullmatch(task_id):
            raise InvalidRequest("a task id is 64 hexadecimal digits")
        trash = await self._chosen(partial(self._books.for_task, meta.length))
        now = self._clock()
        inline = meta.length is not None and meta.length <= min(INLINE_LIMIT, meta.piece_length)
        record = TaskRecord(spec=spec, meta=meta, inline=inline, created=now, accessed=now)
        self._books.records[task_id] = record
        try:
            await self._unlink(trash)
            await self._with_eviction(partial(self._write_record, task_id, record))
            content = await self._with_eviction(
                partial(trio.to_thread.run_sync, self._load_content, task_id, record)
            )
        except BaseException:
            unlink_all(self._forget([task_id], tell=False))
            raise
        self._books.opened(content)
        return content

    async def _write_record(self, task_id: str, record: TaskRecord) -> None:
        await self._index.write((b"t" + task_id.encode(), encode_record(record)))

    async def _with_eviction(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Once more, after evicting the least recently used content, when the disk is full."""
        try:
            return await attempt()
        except StoreFull:
            if not await self.evict(1):
                raise
        return await attempt()

    def _load_content(self, task_id: str, record: TaskRecord) -> TaskContent:
        """Blocking."""
        pieces = open_pieces(
            self._content, self._index, task_id, record.meta, record.inline, self._config.max_map
        )
        try:
            return TaskContent(self, task_id, record, pieces)
        except BaseException:
            pieces.close()
            raise

    @asynccontextmanager
    async def _turn(self, task_id: str) -> AsyncIterator[None]:
        """Opening and removing one task happen one after the other; meanwhile it is not evicted."""
        lock = self._books.turns.setdefault(task_id, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked():
                self._books.turns.pop(task_id, None)

    # --- removing --------------------------------------------------------------------------------------

    async def _chosen(self, choose: Callable[[], list[str]]) -> list[Path]:
        """Evict what ``choose`` says; gives the files to unlink. Raises StoreFull.

        There is no checkpoint between a choice that succeeds and the return.
        """
        try:
            chosen = choose()
        except StoreFull:
            if not self.on_pressure:
                raise
            await self._relieve()
            chosen = choose()
        return self._evict(chosen)

    async def _relieve(self) -> None:
        for callback in self.on_pressure:
            await callback()

    def _evict(self, task_ids: list[str]) -> list[Path]:
        for task_id in task_ids:
            log.info("evicting", task=task_id, size=self._books.records[task_id].size)
        self._evicted += len(task_ids)
        return self._forget(task_ids)

    def _forget(self, task_ids: Iterable[str], *, tell: bool = True) -> list[Path]:
        """Strike tasks off, all at once; gives the files to unlink."""
        trash: list[Path] = []
        for task_id in task_ids:
            struck = self._books.strike(task_id)
            if struck is None:
                continue
            self._dirty.discard(task_id)
            key = task_id.encode()
            self._index.write_later((b"t" + key, None), (b"i" + key, None))
            path = None if struck[0].inline else discard(self._content, task_id)
            if path is not None:
                trash.append(path)
            for callback in self.on_removed if tell else ():
                callback(task_id)
        return trash

    async def _unlink(self, trash: list[Path]) -> None:
        if trash:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(unlink_all, trash)

    # --- keeping ---------------------------------------------------------------------------------------

    def _retain(self, content: TaskContent) -> None:
        """Use a content for the store's own work; it may be evicted meanwhile."""
        content.users += 1
        content.own_users += 1

    async def _make_durable(self, content: TaskContent) -> None:
        """Ends one use of the content by the store itself."""
        try:
            while content.record.complete and not content.record.durable and not content.dropped:
                before = content.changes
                await trio.to_thread.run_sync(content.sync)
                content.record.durable = content.record.complete and content.changes == before
            self.save(content)
        except StoreError as error:
            log.warning("content could not be made durable", task=content.task_id, cause=str(error))
        finally:
            content.own_users -= 1
            self.release(content)

    async def _finish_durability(self) -> None:
        """What was complete but not yet durable when the process before ended."""
        unfinished = [
            key for key, record in self._books.records.items() if record.complete and not record.durable
        ]
        for task_id in unfinished:
            try:
                content = await self._opened(task_id, None, None)
            except (TaskNotFound, StoreError) as error:
                log.warning("content could not be made durable", task=task_id, cause=str(error))
                continue
            content.own_users += 1
            await self._make_durable(content)

    async def _keep_house(self) -> None:
        while True:
            await trio.sleep(FLUSH_INTERVAL)
            self._flush()
            await self._unlink(self._evict(self._books.expired()))

    def _flush(self) -> None:
        """Write the records of contents that were read or written, not of those that are merely open."""
        for task_id, content in self._books.open.items():
            if self._books.in_use(task_id):
                self._books.touch(content)
            self._books.note(content)
            if content.touched:
                content.touched = False
                self._dirty.add(task_id)
        writes = [
            (b"t" + task_id.encode(), encode_record(self._books.records[task_id])) for task_id in self._dirty
        ]
        self._dirty.clear()
        self._index.write_later(*writes)

    def __repr__(self) -> str:
        return f"<Store {self._content.parent}: {len(self._books.records)} tasks, {self._books.used} bytes>"


def _same_content(one: TaskMeta, other: TaskMeta) -> bool:
    """Whether pieces of both may be mixed."""
    if (one.version, one.piece_length) != (other.version, other.piece_length):
        return False
    return one.length is None or other.length is None or one.length == other.length
