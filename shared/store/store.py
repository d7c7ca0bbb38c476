"""The store: tasks and their pieces on this machine's disk, within a quota, across restarts and kills."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog
import trio

from shared.errors import StoreDamaged, StoreError, StoreFull, StoreLocked, TaskNotFound
from shared.protocol import TaskMeta
from shared.store.config import StoreConfig
from shared.store.content import ContentFile, InlineContent, Pieces, disk_room, remove_content
from shared.store.eviction import Candidate, choose, expired
from shared.store.index import Index, full
from shared.store.records import (
    INLINE_LIMIT,
    StoredTask,
    TaskRecord,
    decode_record,
    encode_record,
)
from shared.store.task import TaskContent
from shared.task.bitmap import Bitmap
from shared.task.identity import TaskSpec

log = structlog.get_logger()

WRITERS = 4
"""Worker threads that verify and write pieces at once."""
FLUSH_INTERVAL = 5.0
"""Seconds between writes of last-access times."""
DISK_CHECK = 0.5
"""Seconds for which a look at the free disk space holds."""


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """``used`` bytes of content, ``quota`` (0: none), numbers of tasks, of open ones, of evicted ones."""

    used: int
    quota: int
    tasks: int
    open: int
    evicted: int


def boot_id() -> str:
    """Which boot of the machine this is."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


class Store:
    """Open it with ``async with Store.open(...)``. One process at a time per folder."""

    def __init__(
        self,
        folder: Path,
        config: StoreConfig,
        index: Index,
        nursery: trio.Nursery,
        clock: Callable[[], float],
    ) -> None:
        self.on_removed: list[Callable[[str], None]] = []
        """Called with the id of each task that was removed or evicted."""
        self.on_pressure: list[Callable[[], Awaitable[None]]] = []
        """Called before anything is evicted: give up uses that nobody needs just now."""
        self.writers = trio.CapacityLimiter(WRITERS)
        self._content = folder / "content"
        self._config = config
        self._index = index
        self._nursery = nursery
        self._clock = clock
        self._records: dict[str, TaskRecord] = {}
        self._open: dict[str, TaskContent] = {}
        self._opening: dict[str, trio.Lock] = {}
        self._dirty: set[str] = set()
        self._used = 0
        self._evicted = 0
        self._room: tuple[float, int] = (-DISK_CHECK, 0)

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

        Raises StoreLocked when another process has it, StoreDamaged, StoreFull.
        """
        lock = await trio.to_thread.run_sync(_lock_folder, data_dir)
        try:
            index = await trio.to_thread.run_sync(Index, data_dir / "index.mdb")
            try:
                writer_scope = trio.CancelScope()
                async with trio.open_nursery() as nursery:
                    store = cls(data_dir, config, index, nursery, clock)
                    await trio.to_thread.run_sync(store._load, boot())

                    async def write_index() -> None:
                        with writer_scope:
                            await index.run()

                    nursery.start_soon(write_index)
                    nursery.start_soon(store._keep_house)
                    index.write_later((b"mboot", boot().encode()))
                    try:
                        yield store
                    finally:
                        store._flush()
                        nursery.cancel_scope.cancel()
            finally:
                index.close()
        finally:
            os.close(lock)

    # --- looking ---------------------------------------------------------------------------------------

    def tasks(self) -> list[StoredTask]:
        """All tasks of which something is known here."""
        return [self._view(task_id, record) for task_id, record in self._records.items()]

    def get(self, task_id: str) -> StoredTask | None:
        """One task, None when it is not here."""
        record = self._records.get(task_id)
        return None if record is None else self._view(task_id, record)

    def statistics(self) -> StoreStatistics:
        """How full the store is."""
        return StoreStatistics(
            self._used, self._config.quota, len(self._records), len(self._open), self._evicted
        )

    async def digests(self, task_id: str) -> dict[int, bytes] | None:
        """The digests of all pieces held of a task; None when it is not here."""
        try:
            async with self.use(task_id) as content:
                return dict(content.digests)
        except (TaskNotFound, StoreError):
            return None

    # --- using -----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def use(self, task_id: str) -> AsyncIterator[TaskContent]:
        """A stored task for the time of the context, in which it is not evicted. Raises TaskNotFound."""
        content = await self._opened(task_id, None, None)
        try:
            yield content
        finally:
            self.release(content)

    @asynccontextmanager
    async def create(
        self, spec: TaskSpec, meta: TaskMeta, task_id: str | None = None
    ) -> AsyncIterator[TaskContent]:
        """The task in this version, for the time of the context; new, or with what is held of it.

        Another version that is held is removed first. Raises StoreFull when there is no room for it.
        """
        content = await self._opened(task_id or spec.task_id, spec, meta)
        try:
            yield content
        finally:
            self.release(content)

    async def remove(self, task_id: str) -> None:
        """Remove a task; whoever reads it now may finish. Unknown ones are fine."""
        if self._forget(task_id):
            await trio.to_thread.run_sync(remove_content, self._content, task_id)

    async def set_pin(self, task_id: str, pinned: bool) -> None:
        """Keep a task from being evicted, or no longer. Raises TaskNotFound."""
        record = self._records.get(task_id)
        if record is None:
            raise TaskNotFound("this host holds nothing of the task")
        record.pinned = pinned
        await self._index.write((b"t" + task_id.encode(), encode_record(record)))

    # --- for TaskContent ---------------------------------------------------------------------------------

    def release(self, content: TaskContent) -> None:
        """One use of a content ended; the last one closes it."""
        content.users -= 1
        if content.users:
            return
        content.close()
        if self._open.get(content.task_id) is content:
            del self._open[content.task_id]
            if not content.dropped:
                self._touch(content)
                self._dirty.add(content.task_id)

    def save(self, content: TaskContent) -> None:
        """The record changed: write it soon."""
        if not content.dropped:
            self._touch(content)
            self._index.write_later((b"t" + content.task_id.encode(), encode_record(content.record)))

    def completed(self, content: TaskContent) -> None:
        """All pieces are held: make them durable in the background, then say so in the index."""
        self.save(content)
        if not content.dropped and not content.record.durable:
            content.users += 1
            self._nursery.start_soon(self._make_durable, content)

    async def write_inline(self, key: bytes, value: bytes | None) -> None:
        """Commit an inline content. Raises StoreFull, StoreError."""
        with trio.CancelScope(shield=True):
            await self._index.write((key, value))

    def gained(self, size: int) -> None:
        """So many bytes more are held."""
        self._used += size
        at, room = self._room
        self._room = (at, room - size)

    def short_of(self, size: int, content: TaskContent | None) -> bool:
        """Whether ``size`` more bytes do not fit now."""
        return self._shortage(size) > 0

    async def make_room(self, size: int, content: TaskContent | None) -> None:
        """Evict until ``size`` bytes fit. Raises StoreFull, naming what is full."""
        shortage = self._shortage(size)
        if shortage > 0 and not await self.evict_for(shortage):
            quota = self._config.quota
            raise full("quota" if quota and self._used + size > quota else "disk")

    async def evict_for(self, size: int) -> bool:
        """Evict unpinned, unused content for ``size`` bytes; whether there was enough of it."""
        for release_idle in self.on_pressure:
            await release_idle()
        chosen = choose(self._candidates(), size)
        for task_id in chosen:
            log.info("evicting", task=task_id)
            self._evicted += 1
            await self.remove(task_id)
        self._room = (-DISK_CHECK, 0)
        return bool(chosen)

    # --- inside ------------------------------------------------------------------------------------------

    async def _opened(self, task_id: str, spec: TaskSpec | None, meta: TaskMeta | None) -> TaskContent:
        lock = self._opening.setdefault(task_id, trio.Lock())
        try:
            async with lock:
                record = self._records.get(task_id)
                if record is not None and meta is not None and record.meta.version != meta.version:
                    await self.remove(task_id)
                    record = None
                if record is None:
                    if spec is None or meta is None:
                        raise TaskNotFound("this host holds nothing of the task")
                    record = await self._new_record(task_id, spec, meta)
                content = self._open.get(task_id)
                if content is None:
                    content = await self._open_content(task_id, record)
                content.users += 1
                return content
        finally:
            if not lock.statistics().tasks_waiting and not lock.locked():
                self._opening.pop(task_id, None)

    async def _new_record(self, task_id: str, spec: TaskSpec, meta: TaskMeta) -> TaskRecord:
        if meta.length is not None:
            expected = meta.length + self._promised()
            if self._shortage(expected) > 0:
                await self.make_room(expected, None)
        now = self._clock()
        inline = meta.length is not None and meta.length <= INLINE_LIMIT
        record = TaskRecord(spec=spec, meta=meta, inline=inline, created=now, accessed=now)
        self._records[task_id] = record
        try:
            await self._index.write((b"t" + task_id.encode(), encode_record(record)))
        except StoreFull:
            if not await self.evict_for(1):
                self._records.pop(task_id, None)
                raise
            self._index.write_later((b"t" + task_id.encode(), encode_record(record)))
        except BaseException:
            self._forget(task_id)
            raise
        return record

    async def _open_content(self, task_id: str, record: TaskRecord) -> TaskContent:
        try:
            pieces = await trio.to_thread.run_sync(self._open_pieces, task_id, record)
            content = TaskContent(self, task_id, record, pieces)
        except StoreError:
            if not record.size:
                self._forget(task_id)
            raise
        self._open[task_id] = content
        return content

    def _open_pieces(self, task_id: str, record: TaskRecord) -> Pieces:
        if record.inline:
            return InlineContent(self._index, task_id)
        meta = record.meta
        return ContentFile(
            self._content / f"{task_id}.mdb", meta.length, meta.piece_length, self._config.max_map
        )

    def _forget(self, task_id: str) -> bool:
        record = self._records.pop(task_id, None)
        if record is None:
            return False
        content = self._open.pop(task_id, None)
        if content is not None:
            self._touch(content)
            content.dropped = True
        self._used -= record.size
        self._dirty.discard(task_id)
        key = task_id.encode()
        self._index.write_later((b"t" + key, None), (b"i" + key, None))
        for callback in self.on_removed:
            callback(task_id)
        return True

    async def _make_durable(self, content: TaskContent) -> None:
        try:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(content.sync)
            content.record.durable = content.record.complete
            self.save(content)
        except StoreError as error:
            log.warning("content could not be made durable", task=content.task_id, cause=str(error))
        finally:
            self.release(content)

    def _touch(self, content: TaskContent) -> None:
        record = content.record
        record.accessed = self._clock()
        record.held = content.held.to_bytes()
        record.size = content.size

    def _flush(self) -> None:
        for task_id, content in self._open.items():
            self._touch(content)
            self._dirty.add(task_id)
        writes = [
            (b"t" + task_id.encode(), encode_record(self._records[task_id]))
            for task_id in self._dirty
            if task_id in self._records
        ]
        self._dirty.clear()
        if writes:
            self._index.write_later(*writes)

    async def _keep_house(self) -> None:
        while True:
            await trio.sleep(FLUSH_INTERVAL)
            self._flush()
            for task_id in expired(self._candidates(), self._clock(), self._config.ttl):
                self._evicted += 1
                await self.remove(task_id)

    def _candidates(self) -> list[Candidate]:
        return [
            Candidate(task_id, record.size, record.accessed, record.pinned or task_id in self._open)
            for task_id, record in self._records.items()
        ]

    def _promised(self) -> int:
        """Bytes that open, unfinished contents of known length are still going to take."""
        return sum(
            max(0, content.meta.length - content.size)
            for content in self._open.values()
            if content.meta.length is not None and not content.record.complete
        )

    def _shortage(self, size: int) -> int:
        quota = self._config.quota
        over_quota = self._used + size - quota if quota else 0
        return max(over_quota, size - self._disk_room())

    def _disk_room(self) -> int:
        now = time.monotonic()
        at, room = self._room
        if now - at > DISK_CHECK:
            room = disk_room(self._content, self._config.disk_share)
            self._room = (now, room)
        return room

    def _view(self, task_id: str, record: TaskRecord) -> StoredTask:
        content = self._open.get(task_id)
        return StoredTask(
            task_id=task_id,
            spec=record.spec,
            meta=record.meta,
            held=Bitmap.from_bytes(record.held) if content is None else content.held.copy(),
            size=record.size if content is None else content.size,
            complete=record.complete,
            durable=record.durable,
            pinned=record.pinned,
            created=record.created,
            accessed=record.accessed,
            sha256=record.sha256,
        )

    # --- starting (blocking) -------------------------------------------------------------------------------

    def _load(self, boot: str) -> None:
        """Read the index; drop what cannot be trusted, and files that nobody knows."""
        same_boot = self._index.get(b"mboot") == boot.encode()
        gone: list[tuple[bytes, bytes | None]] = []
        for key, value in self._index.items(b"t"):
            task_id = key.decode()
            record = self._loaded(task_id, value, same_boot)
            if record is None:
                gone += [(b"t" + key, None), (b"i" + key, None)]
                remove_content(self._content, task_id)
            else:
                self._records[task_id] = record
                self._used += record.size
        self._index.write_later(*gone)
        for path in self._content.iterdir():
            if path.name.split(".")[0] not in self._records:
                path.unlink(missing_ok=True)

    def _loaded(self, task_id: str, value: bytes, same_boot: bool) -> TaskRecord | None:
        try:
            record = decode_record(value)
        except msgspec.MsgspecError as error:
            log.warning("an index record cannot be read and is dropped", task=task_id, cause=str(error))
            return None
        if not record.durable and not same_boot:
            log.info("dropped after a crash of the machine: not durable", task=task_id)
            return None
        if record.durable and record.complete:
            return record if record.inline or (self._content / f"{task_id}.mdb").exists() else None
        try:
            pieces = self._open_pieces(task_id, record)
            content = TaskContent(self, task_id, record, pieces)
            record.held, record.size = content.held.to_bytes(), content.size
            layout = content.layout
            record.complete = layout is not None and content.held.covers(layout.count)
            content.close()
        except (StoreError, ValueError) as error:
            log.warning("a content cannot be read and is dropped", task=task_id, cause=str(error))
            return None
        return record


def _lock_folder(data_dir: Path) -> int:
    try:
        (data_dir / "content").mkdir(parents=True, exist_ok=True)
        lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno == 28:
            raise full("disk") from None
        raise StoreDamaged(
            f"the data folder {data_dir} cannot be used ({error.strerror}): give another with --data-dir"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(lock, 32).decode(errors="replace").strip()
        os.close(lock)
        raise StoreLocked(
            f"another dragonet (pid {owner or 'unknown'}) uses {data_dir}: stop it, or give --data-dir another folder"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock
