from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from cdn.reading.buffers import PieceBuffers
from cdn.reading.plan import ContentChanged
from cdn.reading.stores import storing
from shared.errors import SourceError, StoreFull


async def test_buffers_are_reused_and_bounded() -> None:
    buffers = PieceBuffers(2, 100)
    first, second = await buffers.take(), await buffers.take()
    assert len(first) == len(second) == 100
    with trio.move_on_after(0) as scope:
        await buffers.take()
    assert scope.cancelled_caught
    first[:3] = b"abc"
    buffers.give(first)
    assert bytes((await buffers.take())[:3]) == b"abc"
    for count, size in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least one"):
            PieceBuffers(count, size)


@pytest.mark.parametrize("error", [SourceError("cut"), ContentChanged()])
async def test_what_was_begun_is_stored_before_an_error_is_raised(
    error: Exception, nursery: trio.Nursery
) -> None:
    stored: list[int] = []
    gate, raised = trio.Event(), trio.Event()

    async def store(number: int, data: memoryview) -> None:
        await gate.wait()
        stored.append(number)

    async def receive() -> None:
        buffers = PieceBuffers(2, 10)
        async with storing(store, buffers) as stores:
            buffer = await buffers.take()
            stores.begin(1, buffer[:5], buffer)
            raise error

    async def attempt() -> None:
        with pytest.raises(type(error)):
            await receive()
        raised.set()

    nursery.start_soon(attempt)
    await wait_all_tasks_blocked()
    assert not stored
    assert not raised.is_set()
    gate.set()
    await raised.wait()
    assert stored == [1]


async def test_a_piece_that_cannot_be_stored_ends_the_block() -> None:
    async def store(number: int, data: memoryview) -> None:
        raise StoreFull("no room")

    buffers = PieceBuffers(1, 10)

    async def receive() -> None:
        async with storing(store, buffers) as stores:
            buffer = await buffers.take()
            stores.begin(1, buffer, buffer)
            await trio.sleep_forever()

    with pytest.raises(StoreFull):
        await receive()
    await buffers.take()
