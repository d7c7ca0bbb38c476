"""Reading a source from its first byte to its last, from one answer: where ranges cannot be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import trio

from cdn.reading.plan import ContentChanged, Found, beyond_end, wanted_pieces
from cdn.reading.stores import Stores, storing
from cdn.sources.interface import SourceCut, SourceResponse
from shared.errors import SourceError
from shared.protocol import TaskMeta
from shared.task.bitmap import MAX_PIECES
from shared.task.digest import piece_digest
from shared.task.pieces import PieceLayout

if TYPE_CHECKING:
    from cdn.reading.session import SourceSession

_BUFFERS = 3
"""One that is received into, one that is stored, and one so that neither waits for the other."""


async def read_through(session: SourceSession, answer: SourceResponse, found: Found) -> TaskMeta:
    """Read the content from an answer that begins at the source's (or, for a part, the task's) first byte.

    Gives the metadata with the final length. Raises SourceError (SourceCut when another try may help),
    StoreError, or ContentChanged when the bytes are not of the version in ``found``.
    """
    length = 0
    async with storing(session.store, session.buffers(found.meta, _BUFFERS)) as stores:
        length = await _Walk(session, answer, found, stores).run()
    return msgspec.structs.replace(found.meta, length=length)


class _Walk:
    def __init__(self, session: SourceSession, answer: SourceResponse, found: Found, stores: Stores) -> None:
        self._session = session
        self._answer = answer
        self._found = found
        self._stores = stores
        self._meta = found.meta
        self._held = session.sink.held()
        self._wanted = None
        if found.meta.length is not None:
            count = PieceLayout(found.meta.length, found.meta.piece_length).count
            self._wanted = wanted_pieces(count, session.pieces, self._held)

    async def run(self) -> int:
        """The content's length."""
        meta, session = self._meta, self._session
        end = session.window.longest if meta.length is None else meta.length
        if not self._found.ranged:
            await self._skip_front(session.window.first)
        position = number = 0
        while end is None or position < end:
            if end is not None and self._done():
                return end  # the rest is held already, or somebody else's to read
            if number >= MAX_PIECES:
                raise SourceError(f"{session.shown} does not end: it is longer than any content may be")
            size = meta.piece_length if end is None else min(meta.piece_length, end - position)
            filled = await self._piece(number, size)
            position += filled
            number += 1
            if filled < size:
                self._check_end(position)
                return position
        if meta.length is not None and self._found.total is None and session.window.last is None:
            await self._expect_end()
        return position

    async def _piece(self, number: int, size: int) -> int:
        buffers = self._stores.buffers
        buffer = await buffers.take()
        data = buffer[: await self._fill(buffer[:size])]
        if len(data) < size:
            self._check_cut(len(data), number)
        expected = self._session.sink.digest(number) if self._found.compare and data else None
        if expected is not None and await trio.to_thread.run_sync(piece_digest, data) != expected:
            raise ContentChanged
        needed = number not in self._held if self._wanted is None else number in self._wanted
        if data and needed:
            self._stores.begin(number, data, buffer)
        else:
            buffers.give(buffer)
        if self._wanted is not None:
            self._wanted.discard(number)
        return len(data)

    def _done(self) -> bool:
        # Without validators every piece must be compared: those held may be of another version.
        return self._wanted is not None and not self._wanted and not self._found.compare

    def _check_cut(self, filled: int, number: int) -> None:
        """The answer ended inside a piece: raises unless its end was not known beforehand."""
        if self._found.total is not None:
            position = number * self._meta.piece_length + filled
            raise SourceCut(f"{self._session.shown} ended after {position} of {self._meta.length} bytes")
        if self._meta.length is not None:
            raise ContentChanged

    def _check_end(self, position: int) -> None:
        if position == 0 and self._session.window.last is not None:
            raise beyond_end(self._session.window.first)

    async def _expect_end(self) -> None:
        if await self._answer.receive_into(memoryview(bytearray(1))):
            raise ContentChanged

    async def _skip_front(self, left: int) -> None:
        buffer = await self._stores.buffers.take()
        while left:
            count = await self._session.receive(self._answer, buffer[:left])
            if not count:
                raise beyond_end(self._session.window.first - left)
            left -= count
        self._stores.buffers.give(buffer)

    async def _fill(self, buffer: memoryview) -> int:
        filled = 0
        while filled < len(buffer):
            count = await self._session.receive(self._answer, buffer[filled:])
            if not count:
                break
            filled += count
        return filled
