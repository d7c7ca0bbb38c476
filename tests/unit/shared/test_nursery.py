"""Several at once, and the first error of them."""

from __future__ import annotations

import pytest
import trio

from shared.nursery import run_several


async def test_all_run() -> None:
    ran = []

    async def work() -> None:
        ran.append(1)
        await trio.lowlevel.checkpoint()

    await run_several(work, 5)
    assert len(ran) == 5


async def test_the_first_error_ends_the_others() -> None:
    begun = 0

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun == 5:
            raise ValueError("first")
        if begun < 5:
            await trio.sleep_forever()
        raise KeyError("second")

    with pytest.raises((ValueError, KeyError)):
        await run_several(work, 6)


async def test_cancellation_passes_through() -> None:
    with trio.move_on_after(0.01) as scope:
        await run_several(trio.sleep_forever, 3)
    assert scope.cancelled_caught
