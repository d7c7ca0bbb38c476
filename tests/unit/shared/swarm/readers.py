"""Readers of content, for tests."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import msgspec
import trio
import trio.testing

from shared.errors import (
    DragonetError,
    SourceError,
)
from shared.swarm.origin import OriginJob, OriginSink
from shared.swarm.reading import Reading, ReadOrder, open_reading
from shared.task.bitmap import Bitmap
from shared.task.identity import TaskSpec
from tests.unit.shared.swarm.fakes import (
    SPEC,
    Sample,
    sample,
)
from tests.unit.shared.swarm.worlds import OF, World

LENGTH = len(OF.data)
RIGHT = "sha256:" + hashlib.sha256(OF.data).hexdigest()
KNOWN = msgspec.structs.replace(SPEC, digest=RIGHT)
"""Content that is known by its digest."""
NONE = {"store": 0, "peer": 0, "seeder": 0, "origin": 0}
OTHER = sample(7, version="v2", seed=2)


async def begin(world: World, spec: TaskSpec = KNOWN, **order: Any) -> Reading:
    with trio.fail_after(1000):
        return await open_reading(world.host, ReadOrder(spec, **order))


async def collect(reading: Reading, start: int = 0, stop: int | None = None) -> bytes:
    data = bytearray()
    with trio.fail_after(1000):
        await take(reading.body(start, reading.length if stop is None else stop), data)
    return bytes(data)


async def take(body: AsyncIterator[memoryview], into: bytearray) -> None:
    """All that comes yet."""
    async for chunk in body:
        into += chunk


async def read(world: World, spec: TaskSpec = KNOWN, **order: Any) -> bytes:
    async with reading_of(world, spec, **order) as reading:
        with trio.fail_after(1000):
            await reading.ready(0, reading.length)
        return await collect(reading)


@asynccontextmanager
async def reading_of(world: World, spec: TaskSpec = KNOWN, **order: Any) -> AsyncIterator[Reading]:
    reading = await begin(world, spec, **order)
    try:
        yield reading
    finally:
        await reading.aclose()


def fails_after(world: World, *counts: int, error: DragonetError | None = None) -> None:
    """The origin breaks off: the first time after ``counts[0]`` new pieces, and so on; then it gives all."""
    left = list(counts)

    async def some(job: OriginJob, sink: OriginSink) -> None:
        if not left:
            await world.origin.give(job, sink)
            return
        count = left.pop(0)
        of = world.origin.sample
        await sink.opened(of.meta)
        missing = [number for number in range(of.count) if number not in sink.held()]
        for number in missing[:count]:
            await sink.piece(number, memoryview(of.piece(number)))
        await trio.testing.wait_all_tasks_blocked()
        raise error or SourceError("the registry died")

    world.origin.script = some


def first(count: int) -> Bitmap:
    return Bitmap.full(count)


async def assign_soon(world: World, spec: TaskSpec = KNOWN, of: Sample = OF) -> None:
    await trio.testing.wait_all_tasks_blocked()
    await world.assign(of, "p", task=spec.task_id)


def lies(world: World) -> None:
    """The origin has other content than it is known by."""
    world.origin.sample = replace(OF, data=OF.data[:-1] + bytes([OF.data[-1] ^ 1]))
