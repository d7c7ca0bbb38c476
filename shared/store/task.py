"""A stored task that is open: pieces go in verified, and come out as views."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog
import trio

from shared.errors import PieceCorrupt, PieceMissing, StoreError, StoreFull
from shared.protocol import TaskMeta
from shared.store.content import InlineContent, OpenPiece, Pieces
from shared.store.records import TaskRecord
from shared.task.bitmap import Bitmap
from shared.task.digest import piece_digest
from shared.task.pieces import PieceLayout

if TYPE_CHECKING:
    from shared.store.store import Store

log = structlog.get_logger()

INLINE_HASH = 16 * 1024
Also = Callable[[int, memoryview], None]


class TaskContent:
    """One version of one task in the store. Get it from ``Store.create`` or ``Store.use``.

    ``held`` and ``digests`` are live: read them, do not change them.
    """

    def __init__(self, store: Store, task_id: str, record: TaskRecord, pieces: Pieces) -> None:
        self.task_id = task_id
        self.record = record
        self.digests = pieces.load()
        self.held = Bitmap(self.digests)
        self.users = 0
        self.dropped = False
        self._store = store
        self._pieces = pieces
        self._checked: set[int] = set()

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
    def size(self) -> int:
        """Bytes held."""
        layout, held = self.layout, len(self.held)
        if layout is None or not held:
            return held * self.meta.piece_length
        last = layout.count - 1
        return held * layout.piece_length - (
            layout.piece_length - layout.size(last) if last in self.held else 0
        )

    async def put(
        self, number: int, data: memoryview | bytes, *, expected: bytes | None, also: Also | None = None
    ) -> tuple[bytes, bool]:
        """Verify and store a piece; gives its digest, and whether it was not held before.

        Held pieces are verified, not stored again.

        ``also(number, data)`` is called between verifying and storing, in the same worker thread.
        Raises PieceCorrupt when the length or digest is not the expected one, StoreFull, StoreError.
        Cancellation is heard before or after, never in between.
        """
        self._check_size(number, len(data))
        if self._store.short_of(len(data), self):
            await self._store.make_room(len(data), self)
        try:
            return await self._put(number, data, expected, also)
        except StoreFull:
            if not await self._store.evict_for(len(data)):
                raise
        return await self._put(number, data, expected, also)

    async def _put(
        self, number: int, data: memoryview | bytes, expected: bytes | None, also: Also | None
    ) -> tuple[bytes, bool]:
        small = len(data) <= INLINE_HASH and also is None and isinstance(self._pieces, InlineContent)
        if small:
            digest, known = self._write(number, data, expected, None)
        else:
            digest, known = await trio.to_thread.run_sync(
                self._write, number, data, expected, also, limiter=self._store.writers
            )
        if not known:
            if isinstance(self._pieces, InlineContent):
                await self._store.write_inline(self._pieces.key, self._pieces.value)
        fresh = number not in self.held
        if fresh:
            if not self.dropped:
                self._store.gained(len(data))
            self.held.add(number)
        self.digests[number] = digest
        self._checked.add(number)
        return digest, fresh

    def _write(
        self, number: int, data: memoryview | bytes, expected: bytes | None, also: Also | None
    ) -> tuple[bytes, bool]:
        digest = piece_digest(data)
        if expected is not None and digest != expected:
            raise PieceCorrupt(f"piece {number} does not have the digest that was read at the origin")
        if also is not None:
            also(number, memoryview(data))
        known = self.digests.get(number) == digest
        if not known:
            self._pieces.put(number, data, digest)
        return digest, known

    async def open_piece(self, number: int) -> OpenPiece:
        """A view of a piece; close it soon. Raises PieceMissing.

        The first time that a piece is read in this process it is verified, in a thread, which also
        brings it into memory; a damaged one is forgotten and counts as missing.
        """
        if number not in self.held:
            raise PieceMissing(f"piece {number} is not held")
        piece = self._pieces.open(number)
        if piece is None:
            self._lost(number)
            raise PieceMissing(f"piece {number} is not held")
        self.users += 1
        opened = OpenPiece(piece.data, lambda: self._closed(piece))
        if number not in self._checked:
            try:
                good = await self._verify(number, piece.data)
            except BaseException:
                opened.close()
                raise
            if not good:
                opened.close()
                await self._forget_damaged(number)
                raise PieceMissing(f"piece {number} was damaged on disk and has been dropped")
            self._checked.add(number)
        return opened

    @asynccontextmanager
    async def read(self, number: int) -> AsyncIterator[memoryview | bytes]:
        """A view of a piece for the time of the context. Raises PieceMissing."""
        piece = await self.open_piece(number)
        try:
            yield piece.data
        finally:
            piece.close()

    async def set_meta(self, meta: TaskMeta) -> None:
        """Take over metadata of the same version (its length has become known)."""
        if meta.version != self.meta.version:
            raise ValueError("another version is another content")
        self.record.meta = meta
        self._store.save(self)

    async def complete(self, sha256: str = "") -> None:
        """All pieces are held: the task is complete at once, and made durable in the background."""
        self.record.complete = True
        self.record.sha256 = sha256 or self.record.sha256
        self._store.completed(self)

    # --- for the store -------------------------------------------------------------------------------

    def sync(self) -> None:
        """Make the pieces durable. Blocking."""
        self._pieces.sync()

    def close(self) -> None:
        """Close the storage; nobody uses it any more."""
        self._pieces.close()

    # --- inside --------------------------------------------------------------------------------------

    def _check_size(self, number: int, size: int) -> None:
        layout = self.layout
        if layout is None:
            right = 0 < size <= self.meta.piece_length and number >= 0
        else:
            right = 0 <= number < layout.count and size == layout.size(number)
        if not right:
            raise PieceCorrupt(f"{size} bytes are not a piece {number} of this content")

    async def _verify(self, number: int, data: memoryview | bytes) -> bool:
        if len(data) <= INLINE_HASH:
            return piece_digest(data) == self.digests[number]
        return await trio.to_thread.run_sync(piece_digest, data) == self.digests[number]

    async def _forget_damaged(self, number: int) -> None:
        log.warning("a stored piece is damaged and is dropped", task=self.task_id, piece=number)
        try:
            await trio.to_thread.run_sync(self._pieces.drop, number, limiter=self._store.writers)
        except StoreError as error:
            log.warning("a damaged piece cannot be removed", task=self.task_id, cause=str(error))
        self._lost(number)

    def _lost(self, number: int) -> None:
        self.held.discard(number)
        self.digests.pop(number, None)
        self.record.complete = self.record.durable = False
        self._store.save(self)

    def _closed(self, piece: OpenPiece) -> None:
        piece.close()
        self._store.release(self)

    def __repr__(self) -> str:
        return f"<TaskContent {self.task_id[:12]}, {len(self.held)} pieces, {self.users} users>"
