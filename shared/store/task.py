"""A stored task that is open: pieces go in verified, and come out as views."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from math import inf
from typing import Protocol

import structlog
import trio

from shared.errors import PieceCorrupt, PieceMissing, StoreError, StoreFull
from shared.protocol import TaskMeta
from shared.store.content import InlineContent, OpenPiece, Pieces
from shared.store.environment import MapFull, WriteCut
from shared.store.records import TaskRecord
from shared.task.bitmap import MAX_PIECES, Bitmap
from shared.task.digest import piece_digest
from shared.task.pieces import PieceLayout

log = structlog.get_logger()

INLINE_HASH = 16 * 1024
"""Up to so many bytes are hashed on the spot: a thread would cost more."""
EVICTIONS = 3
"""Times that others make room for one piece: a file system may give back late what was deleted."""
Also = Callable[[int, memoryview], None]


class Contradiction(StoreError):
    """Metadata that the pieces held cannot belong to."""


class Owner(Protocol):
    """What a content needs of its store."""

    writers: trio.CapacityLimiter

    def room(self, content: TaskContent, size: int) -> AbstractAsyncContextManager[None]:
        """Evict until ``size`` bytes more fit, and keep that room while they are written.

        Raises StoreFull, naming what is full.
        """

    async def evict(self, size: int) -> bool:
        """Evict ``size`` bytes whatever the quota says; whether there was enough that may go."""

    async def write_inline(self, key: bytes, value: bytes | None) -> None:
        """Commit an inline content. Raises StoreFull, StoreError."""

    def gained(self, size: int) -> None:
        """So many bytes more are held (negative: fewer)."""

    def save(self, content: TaskContent) -> None:
        """The record changed: write it soon."""

    def completed(self, content: TaskContent) -> None:
        """All pieces are held: make them durable in the background."""

    def release(self, content: TaskContent) -> None:
        """One use of the content ended."""


class TaskContent:
    """One version of one task in the store. Get it from ``Store.create`` or ``Store.use``.

    ``held`` and ``digests`` are live: read them, do not change them. ``size`` is the bytes held.
    ``users`` counts who needs the storage open; at 0 it is closed, and of no more use.
    """

    def __init__(self, owner: Owner, task_id: str, record: TaskRecord, pieces: Pieces) -> None:
        self.task_id = task_id
        self.record = record
        self.digests, self.size = pieces.load()
        self.held = Bitmap(self.digests)
        self.users = 0
        self.own_users = 0
        """Those of ``users`` that are the store itself: they do not keep the content from being evicted."""
        self.coming = 0
        """Bytes of its pieces that are being written now."""
        self.touched = False
        """Whether a piece went in or out since its record was last written."""
        self.dropped = False
        """No longer part of the store: removed, or replaced by another version."""
        self.changes = 0
        """Pieces written since it was opened: what was made durable may have grown since."""
        self._owner = owner
        self._pieces = pieces
        self._checked: dict[int, float] = {}  # number -> when it was verified last, by trio's clock
        self._turns: dict[int, trio.Lock] = {}

    @property
    def meta(self) -> TaskMeta:
        """What the origin told about this version."""
        return self.record.meta

    @property
    def layout(self) -> PieceLayout | None:
        """How the content is cut; None while its length is unknown."""
        meta = self.meta
        return None if meta.length is None else PieceLayout(meta.length, meta.piece_length)

    @property
    def whole(self) -> bool:
        """Whether all pieces are held."""
        layout = self.layout
        return layout is not None and self.held.covers(layout.count)

    # --- writing -------------------------------------------------------------------------------------

    async def put(
        self, number: int, data: memoryview | bytes, *, expected: bytes | None, also: Also | None = None
    ) -> tuple[bytes, bool]:
        """Verify and store a piece; gives its digest, and whether it was not held before.

        Held pieces are verified, not stored again. ``also(number, data)`` is called between verifying
        and storing, in the same worker thread (again, when storing is tried again after eviction).
        Raises PieceCorrupt when the length or digest is not the expected one, StoreFull, StoreError.
        Cancellation is heard before or after, never in between: ``held`` says what is committed.
        """
        self._check_size(number, len(data))
        self._retain()
        try:
            async with self._turn(number):
                return await self._put_in_turn(number, data, expected, also)
        finally:
            self._owner.release(self)

    async def _put_in_turn(
        self, number: int, data: memoryview | bytes, expected: bytes | None, also: Also | None
    ) -> tuple[bytes, bool]:
        if number in self.held or self.dropped:
            return await self._put_or_evict(number, data, expected, also)
        async with self._owner.room(self, len(data)):
            return await self._put_or_evict(number, data, expected, also)

    async def _put_or_evict(
        self, number: int, data: memoryview | bytes, expected: bytes | None, also: Also | None
    ) -> tuple[bytes, bool]:
        evictions, again = 0, False
        while True:
            try:
                return await self._put(number, data, expected, also)
            except MapFull:
                raise
            except StoreFull:
                if evictions == EVICTIONS or not await self._owner.evict(len(data)):
                    raise
                evictions += 1
            except WriteCut:
                if again:
                    raise
                again = True

    async def _put(
        self, number: int, data: memoryview | bytes, expected: bytes | None, also: Also | None
    ) -> tuple[bytes, bool]:
        inline = self._pieces if isinstance(self._pieces, InlineContent) else None
        before = inline.value if inline is not None else None
        if inline is not None and len(data) <= INLINE_HASH and also is None:
            digest, written = self._write(number, data, expected, None)
        else:
            digest, written = await trio.to_thread.run_sync(
                self._write, number, data, expected, also, limiter=self._owner.writers
            )
        if written and inline is not None and not self.dropped:
            try:
                await self._owner.write_inline(inline.key, inline.value)
            except StoreError:
                inline.value = before
                raise
        fresh = number not in self.held
        if fresh:
            self._count(len(data))
            self.held.add(number)
        self.changes += written
        self.digests[number] = digest
        if written:
            self._checked[number] = trio.current_time()
        return digest, fresh

    def _write(
        self, number: int, data: memoryview | bytes, expected: bytes | None, also: Also | None
    ) -> tuple[bytes, bool]:
        """In a worker thread: the digest, and whether the piece had to be written."""
        digest = piece_digest(data)
        if expected is not None and digest != expected:
            raise PieceCorrupt(f"piece {number} does not have the digest that was read at the origin")
        if also is not None:
            also(number, memoryview(data))
        written = self.digests.get(number) != digest
        if written:
            self._pieces.put(number, data, digest)
        return digest, written

    async def set_meta(self, meta: TaskMeta) -> None:
        """Take over metadata of the same version (its length has become known).

        Raises Contradiction, a StoreError, when it does not fit to what is known or held.
        """
        self.adopt(meta)
        self._owner.save(self)

    def adopt(self, meta: TaskMeta) -> None:
        """``set_meta`` without saving it."""
        old = self.meta
        if (meta.version, meta.piece_length) != (old.version, old.piece_length):
            raise Contradiction("metadata of another version does not fit to what is stored")
        if meta.length is None:
            if old.length is not None:
                return
        elif meta.length != old.length:
            layout = PieceLayout(meta.length, meta.piece_length)
            fits = old.length is None and all(n < layout.count for n in self.held)
            if not fits or sum(layout.size(n) for n in self.held) != self.size:
                raise Contradiction(f"a length of {meta.length} bytes does not fit to what is stored")
        self.record.meta = meta

    async def complete(self) -> None:
        """All pieces are held: the task is complete at once, and made durable in the background.

        Raises ValueError when pieces are missing.
        """
        if not self.whole:
            raise ValueError("a content that misses pieces is not complete")
        if self.record.durable:
            return
        self.record.complete = True
        self._owner.completed(self)

    def validated(self, when: float, *, stale: bool = False) -> None:
        """The content was what its source has, at ``when`` (Unix seconds); ``stale``: as far as is known."""
        self.record.validated, self.record.stale = when, stale
        self.touched = True

    def verified(self, digest: str) -> None:
        """The whole content was found to have this digest ("sha256:HEX")."""
        self.record.verified = digest
        self.touched = True

    # --- reading -------------------------------------------------------------------------------------

    async def open_piece(self, number: int, since: float = -inf) -> OpenPiece:
        """A view of a piece; close it soon. Raises PieceMissing, StoreError.

        A piece that was not verified after ``since`` (by trio's clock; in any case the first time that it is
        read since the content was opened) is, in a thread, which also brings it into memory; a damaged one
        is forgotten and counts as missing.
        """
        if number not in self.held or not self.users:
            raise PieceMissing(f"piece {number} is not held")
        piece = self._pieces.open(number)
        if piece is None:
            layout = self.layout
            size = self.meta.piece_length if layout is None else layout.size(number)
            self._lost(number, self.digests[number], size)
            raise PieceMissing(f"piece {number} is not held")
        self._retain()
        opened = OpenPiece(piece.data, lambda: self._closed(piece))
        if self.checked(number, since):
            return opened
        wanted, began = self.digests[number], trio.current_time()
        try:
            good = await self._digest(piece.data) == wanted
        except BaseException:
            opened.close()
            raise
        if good:
            self._checked[number] = began
            return opened
        size = len(piece.data)
        piece.close()
        try:
            async with self._turn(number):
                if number in self.held and not self.checked(number, began):
                    await self._forget_damaged(number, wanted, size)
        finally:
            self._owner.release(self)
        raise PieceMissing(f"piece {number} was damaged on disk and has been dropped")

    @asynccontextmanager
    async def read(self, number: int, since: float = -inf) -> AsyncIterator[memoryview | bytes]:
        """As :meth:`open_piece`, for the time of the context."""
        piece = await self.open_piece(number, since)
        try:
            yield piece.data
        finally:
            piece.close()

    def checked(self, number: int, since: float = -inf) -> bool:
        """Whether a held piece was verified after ``since``, so that it can be read at once."""
        when = self._checked.get(number)
        return when is not None and when >= since

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Have the storage stay open for the time of the context: what is held can be read to its end, also
        when it is removed meanwhile. Raises StoreError when it is closed already."""
        self._retain()
        try:
            yield
        finally:
            self._owner.release(self)

    # --- for the store -------------------------------------------------------------------------------

    def sync(self) -> None:
        """Make the pieces durable. Blocking."""
        self._pieces.sync()

    def close(self) -> None:
        """Close the storage; nobody uses it any more."""
        self._pieces.close()

    # --- inside --------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _turn(self, number: int) -> AsyncIterator[None]:
        """Writes of one piece happen one after the other, so that its digest is that of the last one."""
        lock = self._turns.setdefault(number, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked():
                self._turns.pop(number, None)

    def _retain(self) -> None:
        """The storage must not be closed while a thread or a view uses it."""
        if not self.users:
            raise StoreError("the content is closed")
        self.users += 1
        self.touched = True

    def _check_size(self, number: int, size: int) -> None:
        layout = self.layout
        if layout is None:
            right = 0 < size <= self.meta.piece_length and 0 <= number < MAX_PIECES
        else:
            right = 0 <= number < layout.count and size == layout.size(number)
        if not right:
            raise PieceCorrupt(f"{size} bytes are not a piece {number} of this content")

    async def _digest(self, data: memoryview | bytes) -> bytes:
        if len(data) <= INLINE_HASH:
            return piece_digest(data)
        return await trio.to_thread.run_sync(piece_digest, data)

    async def _forget_damaged(self, number: int, digest: bytes, size: int) -> None:
        log.warning("a stored piece is damaged and is dropped", task=self.task_id, piece=number)
        try:
            await trio.to_thread.run_sync(self._pieces.drop, number, limiter=self._owner.writers)
        except StoreError as error:
            log.warning("a damaged piece cannot be removed", task=self.task_id, cause=str(error))
        self._lost(number, digest, size)

    def _lost(self, number: int, digest: bytes, size: int) -> None:
        """Strike a piece off, unless someone else did, or brought it anew."""
        if number not in self.held or self.digests[number] != digest:
            return
        self.held.discard(number)
        del self.digests[number]
        self._checked.pop(number, None)
        self._count(-size)
        self.record.complete = self.record.durable = False
        self.record.verified = ""
        self._owner.save(self)

    def _count(self, size: int) -> None:
        self.size += size
        if not self.dropped:
            self._owner.gained(size)

    def _closed(self, piece: OpenPiece) -> None:
        piece.close()
        self._owner.release(self)

    def __repr__(self) -> str:
        return f"<TaskContent {self.task_id[:12]}, {len(self.held)} pieces, {self.users} users>"
