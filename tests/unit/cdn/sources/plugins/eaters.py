"""A process of its own, with plugins that eat memory: ``eaters.py HOW...``.

Reads from each while a good plugin is read from again and again, and writes a line of JSON on what became of it.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import weakref
from collections.abc import AsyncIterator, Iterator

import trio

from cdn.sources.interface import SourceRequest, SourceResponse
from cdn.sources.plugins.guard import WATCH
from shared.errors import SourceError
from shared.logging import configure
from tests.unit.cdn.fakes import MIB, MemorySink, job
from tests.unit.cdn.sources.plugins.clients import SHORT, Gives, Good, read, reading, url

MEMORY = 64 * MIB
SAFETY = 6 * 1024 * MIB
"""Bytes of addresses beyond which nothing here can get, whatever fails."""


class Held(list[object]):
    """What a plugin has in its hands."""

    def __init__(self) -> None:
        super().__init__()
        ALIVE.add(self)

    __hash__ = object.__hash__  # type: ignore[assignment]


ALIVE: weakref.WeakSet[Held] = weakref.WeakSet()


def in_download(_: SourceRequest) -> SourceResponse:
    """One plain call that takes more and more."""
    held = Held()
    while True:
        held.append(b"x" * MIB)


def in_small_steps(_: SourceRequest) -> SourceResponse:
    held = Held()
    while True:
        held.append([len(held)])


def in_body(_: SourceRequest) -> SourceResponse:
    """Each call is short; what it leaves behind grows."""

    def body() -> Iterator[bytes]:
        held = Held()
        while True:
            held.append(b"x" * (4 * MIB))
            yield b"y" * 65536

    return SourceResponse(body())


async def in_async(_: SourceRequest) -> SourceResponse:
    held = Held()
    while True:
        held.append(b"x" * MIB)
        await trio.lowlevel.checkpoint()


def in_async_body(_: SourceRequest) -> SourceResponse:
    async def body() -> AsyncIterator[bytes]:
        held = Held()
        while True:
            held.append(b"x" * MIB)
            await trio.lowlevel.checkpoint()
            yield b"y" * 1000

    return SourceResponse(body())


def at_once(_: SourceRequest) -> SourceResponse:
    """More than one tick lets through, as one object."""
    return SourceResponse(b"x" * (3 * 1024 * MIB))


def all_there_is(_: SourceRequest) -> SourceResponse:
    return SourceResponse(b"x" * (64 * 1024 * MIB))


def in_a_chunk(_: SourceRequest) -> SourceResponse:
    """Not more than the process may get, but more than the plugin may take."""
    return SourceResponse(iter([b"x" * (MEMORY + 1)]))


def stubbornly(_: SourceRequest) -> SourceResponse:
    """Catches what stops it, once."""
    held = Held()
    try:
        while True:
            held.append(b"x" * MIB)
    except BaseException:  # noqa: BLE001 - that is the bad plugin
        while True:
            held.append(b"x" * MIB)


class Innocent(Good):
    """Works as hard as it can, with little memory."""

    def whole(self, request: SourceRequest) -> SourceResponse:
        def body() -> Iterator[bytes]:
            for start in range(0, len(SHORT), 1000):
                sum(range(1000))
                yield SHORT[start : start + 1000]

        return SourceResponse(body(), content_length=len(SHORT))


HOWS = {
    give.__name__: give
    for give in (
        in_download,
        in_small_steps,
        in_body,
        in_async,
        in_async_body,
        at_once,
        all_there_is,
        in_a_chunk,
        stubbornly,
    )
}


async def main(how: str) -> None:
    bad = Gives(HOWS[how])
    limit = resource.getrlimit(resource.RLIMIT_DATA)
    said = ""
    async with reading(good=Innocent(SHORT), bad=bad, memory=MEMORY) as reader:

        async def beside(task_status: trio.TaskStatus[None]) -> None:
            while True:
                assert (await read(reader)).content == SHORT
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED

        async with trio.open_nursery() as nursery:
            await nursery.start(beside)
            try:
                await reader.read(job(url("bad")), MemorySink())
            except SourceError as error:
                said = str(error)
            nursery.cancel_scope.cancel()
        assert (await read(reader)).content == SHORT
    gc.collect()
    while WATCH.watching:  # noqa: ASYNC110 - a thread ends it, at its next look
        await trio.sleep(0.01)
    limited = resource.getrlimit(resource.RLIMIT_DATA) != limit
    print(json.dumps({"how": how, "said": said, "kept": len(ALIVE), "limited": limited}), flush=True)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (SAFETY, SAFETY))
    configure("info")
    for name in sys.argv[1:]:
        trio.run(main, name)
