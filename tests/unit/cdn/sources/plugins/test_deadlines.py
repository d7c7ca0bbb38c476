"""Plugins that block, loop or wait for ever, and callers that do not."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator

import pytest
import trio

from cdn.sources.interface import (
    SourceResponse,
)
from cdn.sources.plugins.adapter import PluginClient
from cdn.sources.plugins.calls import STUCK, THREADS, PluginCalls
from shared.errors import SourceError
from tests.unit.cdn.sources.plugins.clients import (
    MEMORY,
    PATIENCE,
    REQUEST,
    SHORT,
    SOON,
    adapted,
    content,
    gate,
    with_method,
)

# What ends an endless loop may hit it in a callback of the garbage collector, which can only be reported.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


async def test_a_method_that_blocks_for_ever() -> None:
    with gate() as door:
        client = adapted(with_method("get_content_length", lambda _: door.wait()), SOON)
        with pytest.raises(SourceError) as caught:
            await client.get_content_length(REQUEST)
    assert str(caught.value) == (
        "the source plugin d7yfs did not answer: get_content_length has run for 0.25 s (source.plugin_timeout)"
    )


async def test_an_async_method_that_never_ends() -> None:
    async def never(_: object) -> int:
        await trio.sleep_forever()
        return 1

    client = adapted(with_method("get_content_length", never), SOON)
    with pytest.raises(SourceError, match=r"get_content_length has run for 0\.25 s"):
        await client.get_content_length(REQUEST)


async def test_a_listing_that_never_ends() -> None:
    def endless(_: object) -> Iterator[str]:
        while True:
            yield "a"

    with pytest.raises(
        SourceError, match=r"did not answer: list has run for|took more than 1GiB of memory in list"
    ):
        await adapted(with_method("list", endless), SOON).list(REQUEST)


async def test_an_endless_loop_is_stopped() -> None:
    ended = threading.Event()

    def endless(_: object) -> int:
        try:
            while True:
                pass
        finally:
            ended.set()

    client = adapted(with_method("get_content_length", endless), SOON)
    with pytest.raises(SourceError, match="did not answer"):
        await client.get_content_length(REQUEST)
    await trio.to_thread.run_sync(ended.wait)


async def test_a_plugin_that_is_stuck_is_not_asked_until_it_returns() -> None:
    with gate() as door:

        def blocks(_: object) -> int:
            door.wait()
            return 1

        calls = PluginCalls("d7yfs", SOON, MEMORY)
        client = PluginClient(with_method("get_content_length", blocks), calls)

        async def ask() -> None:
            with pytest.raises(SourceError, match="did not answer"):
                await client.get_content_length(REQUEST)

        async with trio.open_nursery() as nursery:
            for _ in range(STUCK):
                nursery.start_soon(ask)
        assert calls.stuck == STUCK
        with pytest.raises(
            SourceError, match="is not asked any more: 8 of its calls have not returned"
        ) as caught:
            await client.is_support_range(REQUEST)
        assert caught.value.fault == "reader"
        door.open()
        for _ in range(STUCK):
            await trio.to_thread.run_sync(door.left.acquire)
        while calls.stuck:
            await trio.lowlevel.checkpoint()
        assert await client.is_support_range(REQUEST) is True


async def test_calls_wait_for_a_thread_but_not_for_ever() -> None:
    with gate() as door:

        def blocks(_: object) -> int:
            door.wait()
            return 1

        calls = PluginCalls("d7yfs", SOON, MEMORY, threads=1)
        slow = PluginClient(with_method("get_content_length", blocks), PluginCalls("x", PATIENCE, MEMORY))
        client = PluginClient(with_method("get_content_length", blocks), calls)
        calls.timeout = PATIENCE
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.get_content_length, REQUEST)
            nursery.start_soon(slow.get_content_length, REQUEST)
            for _ in range(2):
                await trio.to_thread.run_sync(door.entered.acquire)
            calls.timeout = SOON
            with pytest.raises(SourceError, match="is busy: its 1 threads have all been waiting"):
                await client.is_support_range(REQUEST)
            door.open()
        calls.timeout = PATIENCE
        assert await client.is_support_range(REQUEST) is True
    assert THREADS > STUCK


@pytest.mark.parametrize("where", ["download", "body", "get_content_length"])
async def test_cancellation_takes_effect_at_once(where: str) -> None:
    closed = threading.Event()
    with gate() as door:

        def body() -> Iterator[bytes]:
            try:
                door.wait()
                yield SHORT
            finally:
                closed.set()

        def download(_: object) -> SourceResponse:
            if where == "download":
                door.wait()
            return SourceResponse(body() if where == "body" else SHORT, close=closed.set)

        def length(_: object) -> int:
            door.wait()
            closed.set()
            return 1

        client = adapted(with_method("get_content_length", length))
        client._client.download = download  # type: ignore[attr-defined]

        async def use() -> None:
            if where == "get_content_length":
                await client.get_content_length(REQUEST)
            else:
                await content(await client.download(REQUEST))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(use)
            await trio.to_thread.run_sync(door.entered.acquire)
            nursery.cancel_scope.cancel()
        assert not closed.is_set()
        door.open()
        # what comes when nobody waits any more is let go of
        await trio.to_thread.run_sync(closed.wait)


async def test_a_cancelled_async_method_with_a_nursery() -> None:
    async def never(_: object) -> int:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(trio.sleep_forever)
        return 1

    client = adapted(with_method("get_content_length", never))
    with trio.move_on_after(0) as scope:
        await client.get_content_length(REQUEST)
    assert scope.cancelled_caught
    late = adapted(with_method("get_content_length", never), SOON)
    with pytest.raises(SourceError, match="did not answer"):
        await late.get_content_length(REQUEST)


async def test_a_method_of_another_framework() -> None:
    class Future:
        def __await__(self) -> Generator[object, None, None]:
            yield self

    async def foreign(_: object) -> int:
        await Future()
        return 1

    with pytest.raises(SourceError, match="failed in get_content_length: TypeError"):
        await adapted(with_method("get_content_length", foreign)).get_content_length(REQUEST)
