from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ParentBusy
from shared.swarm.limits import SLOT_TIME, SLOW_LINE, BufferPool, TokenBucket, UploadSlots


async def test_a_bucket_lets_its_rate_through(autojump_clock: trio.testing.MockClock) -> None:
    bucket = TokenBucket(1000)
    start = trio.current_time()
    for _ in range(50):
        await bucket.take(200)
    assert 9 <= trio.current_time() - start <= 10.5


async def test_requests_larger_than_the_burst_pass_and_are_paid_off(
    autojump_clock: trio.testing.MockClock,
) -> None:
    bucket = TokenBucket(1000)
    start = trio.current_time()
    await bucket.take(100_000)
    assert trio.current_time() == start
    await bucket.take(1)
    assert 99 <= trio.current_time() - start <= 100


async def test_no_rate_means_no_limit(autojump_clock: trio.testing.MockClock) -> None:
    bucket = TokenBucket(0)
    await bucket.take(1 << 50)
    with trio.fail_after(0.001):
        await bucket.take(1 << 50)


async def test_a_cancelled_taker_takes_nothing(autojump_clock: trio.testing.MockClock) -> None:
    bucket = TokenBucket(100)
    await bucket.take(125)
    with trio.move_on_after(0.1):
        await bucket.take(1_000_000)
    start = trio.current_time()
    await bucket.take(1)
    assert trio.current_time() - start < 1


@pytest.mark.parametrize("rate", [-1, float("inf"), float("nan")])
def test_a_rate_must_be_a_number(rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        TokenBucket(rate)


async def test_slots_are_bounded_and_the_queue_too(autojump_clock: trio.testing.MockClock) -> None:
    slots = UploadSlots(1, queue=1, patience=1.0)
    first = await slots.acquire(100)
    results: list[str] = []

    async def want() -> None:
        try:
            await slots.acquire(100)
            results.append("slot")
        except ParentBusy as error:
            results.append("busy" if error.retry_after else "busy, but no word for how long")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(want)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(want)
        await trio.testing.wait_all_tasks_blocked()
        assert results == ["busy"]
        first.release()
        first.release()
    assert results == ["busy", "slot"]
    assert slots.used == 1


async def test_waiting_for_a_slot_has_an_end(autojump_clock: trio.testing.MockClock) -> None:
    slots = UploadSlots(1, patience=1.0)
    slot = await slots.acquire(100)
    with pytest.raises(ParentBusy):
        await slots.acquire(100)
    slot.release()
    assert slots.used == 0


async def test_who_takes_nothing_does_not_keep_others_out(autojump_clock: trio.testing.MockClock) -> None:
    slots = UploadSlots(2, patience=1.0)
    size = 4 * SLOW_LINE
    asleep = [await slots.acquire(size), await slots.acquire(size)]
    await trio.sleep(SLOT_TIME + 3)
    with pytest.raises(ParentBusy):
        await slots.acquire(size)
    await trio.sleep(1)
    awake = [await slots.acquire(size), await slots.acquire(size)]
    with pytest.raises(ParentBusy):
        await slots.acquire(size)
    for slot in asleep:
        slot.release()
    assert slots.used == 2, "what was taken back is not given back as well"
    for slot in awake:
        slot.release()
    assert slots.used == 0


async def test_buffers_are_bounded_in_order_of_asking() -> None:
    pool = BufferPool(100)
    first = await pool.acquire(60)
    got: list[int] = []

    async def want(size: int) -> None:
        buffer = await pool.acquire(size)
        got.append(size)
        assert len(buffer.view) == size
        buffer.release()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(want, 80)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(want, 30)
        await trio.testing.wait_all_tasks_blocked()
        assert got == []  # 30 bytes are free, but who asked first goes first
        first.release()
    assert got == [80, 30]
    assert repr(pool) == "<BufferPool 100/100 free, 0 waiting>"


async def test_a_buffer_larger_than_the_pool_is_had_alone() -> None:
    pool = BufferPool(10)
    buffer = await pool.acquire(1000)
    with trio.move_on_after(0) as scope:
        await pool.acquire(1)
    assert scope.cancelled_caught
    buffer.release()
    buffer.release()
    (await pool.acquire(1)).release()
    assert repr(pool) == "<BufferPool 10/10 free, 0 waiting>"


@given(st.lists(st.integers(min_value=0, max_value=300), min_size=1, max_size=20))
def test_all_memory_comes_back(sizes: list[int]) -> None:
    pool = BufferPool(1000)

    async def main() -> None:
        async def use(size: int) -> None:
            buffer = await pool.acquire(size)
            await trio.lowlevel.checkpoint()
            buffer.release()

        async with trio.open_nursery() as nursery:
            for size in sizes:
                nursery.start_soon(use, size)

    trio.run(main)
    assert repr(pool) == "<BufferPool 1000/1000 free, 0 waiting>"
