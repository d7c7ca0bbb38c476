"""A fixed number of piece buffers between a source and the store, used again and again."""

from __future__ import annotations

import mmap

import trio


class PieceBuffers:
    """Hands out buffers of ``size`` bytes, at most ``count`` at a time.

    Anonymous maps, not bytearrays: their memory goes back to the system when the read is over, and a
    short content touches only the pages that it needs.
    """

    def __init__(self, count: int, size: int) -> None:
        if count < 1 or size < 1:
            raise ValueError("at least one buffer of at least one byte is needed")
        self._size = size
        self._free: list[memoryview] = []
        self._left = count
        self._returned = trio.Semaphore(count)

    async def take(self) -> memoryview:
        """A buffer; waits until one is free."""
        await self._returned.acquire()
        if self._free:
            return self._free.pop()
        self._left -= 1
        return memoryview(mmap.mmap(-1, self._size))

    def give(self, buffer: memoryview) -> None:
        """Put a buffer back; nobody may use it any more."""
        self._free.append(buffer)
        self._returned.release()

    def __repr__(self) -> str:
        return f"<PieceBuffers of {self._size} bytes, {self._returned.value} free>"
