"""The digest of a content that is hashed while its pieces arrive, several at a time."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec
import pytest
import trio
import trio.testing

from shared.swarm.outputs import HASH_PIECES, digest_of
from shared.swarm.task import HostTask
from tests.unit.shared.swarm.fakes import MemoryStore, Reported, Sample, make_task, sample

Clock = trio.testing.MockClock
COUNTS = (0.01, 1, HASH_PIECES - 0.5, HASH_PIECES, HASH_PIECES + 1, 3 * HASH_PIECES + 2.5)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def task(store: MemoryStore) -> AsyncIterator[HostTask]:
    async with aclosing(make_task(store, Reported())) as task:
        yield task


async def gain(task: HostTask, of: Sample, *numbers: int) -> None:
    for number in numbers:
        await task.keep_from_origin(of.version, number, memoryview(of.piece(number)))
        await trio.testing.wait_all_tasks_blocked()


def right(of: Sample) -> str:
    return hashlib.sha256(of.data).hexdigest()


class Hashing:
    """The digest, being computed."""

    def __init__(self, nursery: trio.Nursery, task: HostTask) -> None:
        self.found: list[str] = []
        self._task = task
        nursery.start_soon(self._run)

    async def _run(self) -> None:
        with trio.fail_after(60):
            self.found.append(await digest_of(self._task, "sha256"))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("seed", range(3))
async def test_pieces_that_come_in_any_order(
    autojump_clock: Clock, task: HostTask, count: float, seed: int
) -> None:
    of = sample(count)
    order = list(range(of.count))
    random.Random(seed).shuffle(order)
    await task.adopt(of.meta)
    async with trio.open_nursery() as nursery:
        hashing = Hashing(nursery, task)
        await gain(task, of, *order[:-1])
        assert not hashing.found
        await gain(task, of, *order[-1:])
    assert hashing.found == [right(of)]


@pytest.mark.parametrize("count", COUNTS)
async def test_a_length_that_becomes_known_in_the_end(
    autojump_clock: Clock, task: HostTask, count: float
) -> None:
    of = sample(count)
    async with trio.open_nursery() as nursery:
        await task.adopt(msgspec.structs.replace(of.meta, length=None))
        hashing = Hashing(nursery, task)
        await gain(task, of, *range(of.count))
        assert not hashing.found
        await task.adopt(of.meta)
    assert hashing.found == [right(of)]


async def test_a_piece_damaged_on_disk_is_waited_for(
    autojump_clock: Clock, task: HostTask, store: MemoryStore
) -> None:
    of = sample(2 * HASH_PIECES)
    await task.adopt(of.meta)
    await gain(task, of, *range(of.count))
    store.damaged = {HASH_PIECES + 3}
    async with trio.open_nursery() as nursery:
        hashing = Hashing(nursery, task)
        await trio.testing.wait_all_tasks_blocked()
        assert not hashing.found
        assert HASH_PIECES + 3 not in task.held
        await gain(task, of, HASH_PIECES + 3)
    assert hashing.found == [right(of)]


async def test_another_version_between_two_runs(autojump_clock: Clock, task: HostTask) -> None:
    old, new = sample(2 * HASH_PIECES), sample(HASH_PIECES + 1, version="v2", seed=2)
    await task.adopt(old.meta)
    async with trio.open_nursery() as nursery:
        hashing = Hashing(nursery, task)
        await gain(task, old, *range(HASH_PIECES + 3))
        await task.adopt(new.meta)
        await gain(task, new, *range(new.count))
    assert hashing.found == [right(new)]
