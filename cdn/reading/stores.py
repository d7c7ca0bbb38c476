"""Pieces on their way into the sink while the next ones are received."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from cdn.reading.buffers import PieceBuffers
from cdn.reading.plan import ReadSignal
from shared.errors import DragonetError

Store = Callable[[int, memoryview], Awaitable[None]]


class Stores:
    """Hands received pieces over, each in a task of its own. Made by :func:`storing`."""

    def __init__(
        self, nursery: trio.Nursery, scope: trio.CancelScope, store: Store, buffers: PieceBuffers
    ) -> None:
        self.buffers = buffers
        self.error: DragonetError | ReadSignal | None = None
        self._nursery = nursery
        self._scope = scope
        self._store = store

    def begin(self, number: int, data: memoryview, buffer: memoryview) -> None:
        """Hand over ``data``, which lies in ``buffer``; the buffer is free again when that is done."""
        self._nursery.start_soon(self._run, number, data, buffer)

    def fail(self, error: DragonetError | ReadSignal) -> None:
        """End the block with this error, unless another one was first."""
        if self.error is None:
            self.error = error
            self._scope.cancel()

    async def _run(self, number: int, data: memoryview, buffer: memoryview) -> None:
        try:
            await self._store(number, data)
        except DragonetError as error:
            self.fail(error)
        finally:
            self.buffers.give(buffer)


@asynccontextmanager
async def storing(store: Store, buffers: PieceBuffers) -> AsyncIterator[Stores]:
    """A block that receives pieces and hands them to :meth:`Stores.begin`.

    However the block ends, what was begun is stored before this raises the first error of either side;
    a piece that cannot be stored cancels the block. Cancellation from outside cancels both.
    """
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        stores = Stores(nursery, scope, store, buffers)
        with scope:
            try:
                yield stores
            except (DragonetError, ReadSignal) as error:
                stores.fail(error)
    if stores.error is not None:
        raise stores.error
