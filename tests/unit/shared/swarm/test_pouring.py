"""Content that is given out while it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from shared.errors import SourceError
from shared.swarm.origin import OriginJob, OriginSink
from tests.unit.shared.swarm.fakes import SPEC, FakeParent, sample
from tests.unit.shared.swarm.worlds import OF, TASK, Clock, World, new_world


class Taker:
    """Keeps what came, and how often it began anew."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.begun_again = 0
        self.gate: trio.Event | None = None

    @property
    def content(self) -> bytes:
        return b"".join(self.parts)

    async def piece(self, data: memoryview) -> None:
        self.parts.append(bytes(data))
        if self.gate is not None:
            await self.gate.wait()
        else:
            await trio.lowlevel.checkpoint()

    async def again(self) -> None:
        self.parts.clear()
        self.begun_again += 1


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with new_world() as world:
        yield world


async def test_all_of_it_in_order(autojump_clock: Clock, world: World) -> None:
    taker = Taker()
    await world.get(taker=taker)
    assert taker.content == OF.data
    assert taker.begun_again == 0
    again = Taker()
    await world.get(taker=again)  # from the store
    assert again.content == OF.data


async def test_pieces_in_any_order_come_in_order(autojump_clock: Clock, world: World) -> None:
    world.linked()
    world.lan.add("p", FakeParent(OF))
    taker = Taker()
    async with trio.open_nursery() as nursery:

        async def fetch() -> None:
            await world.get(taker=taker)

        nursery.start_soon(fetch)
        await trio.testing.wait_all_tasks_blocked()
        assert taker.parts == []
        await world.assign(OF, "p")
    assert taker.content == OF.data


async def test_a_slow_taker_is_waited_for(autojump_clock: Clock, world: World) -> None:
    taker = Taker()
    taker.gate = trio.Event()
    done = trio.Event()
    async with trio.open_nursery() as nursery:

        async def fetch() -> None:
            await world.get(taker=taker)
            done.set()

        nursery.start_soon(fetch)
        await trio.sleep(500)
        assert len(taker.parts) == 1
        assert not done.is_set()
        taker.gate.set()
    assert taker.content == OF.data


async def test_another_version_begins_anew(autojump_clock: Clock, world: World) -> None:
    other = sample(3.5, version="two")
    taker = Taker()
    taker.gate = trio.Event()
    world.linked()
    world.lan.add("p", FakeParent(OF))
    world.lan.add("q", FakeParent(other))
    async with trio.open_nursery() as nursery:

        async def fetch() -> None:
            await world.get(taker=taker)

        nursery.start_soon(fetch)
        await trio.testing.wait_all_tasks_blocked()
        await world.assign(OF, "p")
        await trio.sleep(1)
        assert taker.parts
        taker.gate.set()
        await world.assign(other, "q")
    assert taker.content == other.data
    assert taker.begun_again == 1


async def test_a_failure_is_raised(autojump_clock: Clock, world: World) -> None:
    async def fail(job: OriginJob, sink: OriginSink) -> None:
        raise SourceError("no")

    world.origin.script = fail
    with pytest.raises(SourceError, match="no"):
        await world.get(SPEC, taker=Taker())
    assert TASK not in world.host.sessions
