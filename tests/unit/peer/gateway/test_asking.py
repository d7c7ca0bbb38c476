"""One question for many, few at once, none held for long."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from peer.gateway import asking as module
from peer.gateway.asking import AT_ONCE, HOLD, MAX_HELD, Asking
from shared.errors import SourceError, Unavailable


class Asked:
    """Counts what it is asked, and takes its time."""

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds = seconds
        self.count = 0
        self.running = 0
        self.most = 0

    async def __call__(self) -> int:
        self.count += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await trio.sleep(self.seconds)
        finally:
            self.running -= 1
        return self.count


async def test_many_share_an_answer_for_a_while(autojump_clock: MockClock) -> None:
    asking, asked, answers = Asking(), Asked(), []

    async def one() -> None:
        answers.append(await asking.once("r", "key", asked))

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(one)
    assert answers == [1] * 100
    assert await asking.once("r", "key", asked) == 1
    await trio.sleep(HOLD)
    assert await asking.once("r", "key", asked) == 2
    assert await asking.once("r", "other", asked) == 3


async def test_an_answer_tells_how_long_it_holds(autojump_clock: MockClock) -> None:
    asking, asked = Asking(), Asked()
    for count in (1, 2):
        assert await asking.once("r", "key", asked, lambda _: -1.0) == count
    assert len(asking) == 0


async def test_few_at_once_to_one_registry(autojump_clock: MockClock) -> None:
    asking, here, there = Asking(), Asked(), Asked()
    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(asking.once, "here", number, here)
            nursery.start_soon(asking.once, "there", -number - 1, there)
    assert here.most == there.most == AT_ONCE
    assert "0 registries" in repr(asking)


async def test_too_many_are_turned_away(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 5)
    asking, asked, turned_away = Asking(), Asked(), []

    async def one(number: int) -> None:
        try:
            await asking.once("r", number, asked)
        except Unavailable as error:
            turned_away.append(error.retry_after)

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(one, number)
    assert asked.count == AT_ONCE + 5
    assert turned_away == [HOLD] * (50 - asked.count)


async def test_who_is_cancelled_is_followed_by_the_next(autojump_clock: MockClock) -> None:
    asking, asked = Asking(), Asked()
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(0.5):
            nursery.start_soon(asking.once, "r", "key", asked)
            await asking.once("r", "key", asked)
    assert asked.count <= 2
    assert asked.running == 0
    assert await asking.once("r", "key", asked) == asked.count


async def test_an_error_is_everybodys_own(autojump_clock: MockClock) -> None:
    asking, count = Asking(), 0

    async def fails() -> int:
        nonlocal count
        count += 1
        await trio.lowlevel.checkpoint()
        raise SourceError("no")

    for expected in (1, 2):
        with pytest.raises(SourceError):
            await asking.once("r", "key", fails)
        assert count == expected


async def test_what_is_held_is_bounded(autojump_clock: MockClock) -> None:
    asking, asked = Asking(), Asked(0)
    for number in range(MAX_HELD + 100):
        await asking.once("r", number, asked)
    assert len(asking) <= MAX_HELD
    await trio.sleep(HOLD)
    await asking.once("r", "last", asked)
    assert len(asking) == 1
