"""Questions that many ask at the same time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from cdn.sources.oci.flights import Flights
from shared.errors import SourceError


class Work:
    """Takes a second; counts how often it began."""

    def __init__(self, error: SourceError | None = None) -> None:
        self.begun = 0
        self.error = error

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        await trio.sleep(1)
        if self.error is not None:
            raise self.error
        return number


async def test_one_works_for_all(autojump_clock: MockClock) -> None:
    flights: Flights[int] = Flights()
    work, answers = Work(), []

    async def ask() -> None:
        answers.append(await flights.join("a", work))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask)
    assert answers == [1] * 10
    assert await flights.join("a", work) == 2, "what has landed is not asked for its answer again"
    assert repr(flights) == "<Flights: 0 under way>"


async def test_other_questions_do_not_wait(autojump_clock: MockClock) -> None:
    flights: Flights[int] = Flights()
    works = [Work() for _ in range(5)]
    async with trio.open_nursery() as nursery:
        for number, work in enumerate(works):
            nursery.start_soon(flights.join, number, work)
    assert trio.current_time() == pytest.approx(1)
    assert [work.begun for work in works] == [1] * 5


async def test_an_error_is_everybodys(autojump_clock: MockClock) -> None:
    flights: Flights[int] = Flights()
    work = Work(SourceError("no", origin_status=503, retry_after=7, fault="reader"))
    errors: list[SourceError] = []

    async def ask() -> None:
        with pytest.raises(SourceError, match="no") as caught:
            await flights.join("a", work)
        errors.append(caught.value)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
    assert work.begun == 1
    assert len({id(error) for error in errors}) == 3
    assert {(e.origin_status, e.retry_after, e.fault) for e in errors} == {(503, 7, "reader")}


async def test_another_takes_over_from_who_is_cancelled(autojump_clock: MockClock) -> None:
    flights: Flights[int] = Flights()
    work, answers = Work(), []

    async def ask() -> None:
        answers.append(await flights.join("a", work))

    async with trio.open_nursery() as nursery:
        first = trio.CancelScope()

        async def leave() -> None:
            with first:
                await ask()

        nursery.start_soon(leave)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert work.begun == 1
        first.cancel()
    assert answers == [2] * 3
    assert work.begun == 2


async def test_who_waits_may_leave(autojump_clock: MockClock) -> None:
    flights: Flights[int] = Flights()
    work, answers = Work(), []

    async def ask() -> None:
        answers.append(await flights.join("a", work))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.5) as scope:
            await ask()
        assert scope.cancelled_caught
    assert answers == [1]


async def test_the_table_is_bounded(autojump_clock: MockClock) -> None:
    flights: Flights[int] = Flights(most=2)
    work = Work()
    async with trio.open_nursery() as nursery:
        for keys in ("ab", "cc"):
            for key in keys:
                nursery.start_soon(flights.join, key, work)
            await trio.testing.wait_all_tasks_blocked()
        assert repr(flights) == "<Flights: 2 under way>"
        assert work.begun == 4
