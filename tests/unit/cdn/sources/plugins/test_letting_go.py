"""What is behind an answer is closed, once, whatever happens."""

from __future__ import annotations

import io
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
import trio

from cdn.sources.interface import (
    SourceRequest,
    SourceResponse,
)
from shared.errors import SourceError
from tests.unit.cdn.sources.plugins.clients import (
    REQUEST,
    SHORT,
    SOON,
    Gives,
    adapted,
    content,
    gate,
    with_method,
)


@pytest.mark.parametrize("how", ["read", "unread", "part"])
@pytest.mark.parametrize("is_async", [False, True])
async def test_an_answer_is_closed_once(how: str, is_async: bool) -> None:
    closed: list[str] = []

    class File(io.BytesIO):
        def close(self) -> None:
            closed.append("file")
            super().close()

    async def close() -> None:
        closed.append("answer")

    def give(request: SourceRequest) -> SourceResponse:
        return SourceResponse(File(SHORT), close=close if is_async else lambda: closed.append("answer"))

    answer = await adapted(Gives(give)).download(REQUEST)
    if how == "read":
        assert await content(answer) == SHORT
    elif how == "part":
        assert await answer.receive_into(memoryview(bytearray(10))) == 10
    await answer.aclose()
    await answer.aclose()
    assert closed[:2] == ["file", "answer"]
    assert len(closed) == 2 or closed[2:] == ["file"]  # (the last is the garbage collector's)


async def test_generators_are_closed() -> None:
    closed: list[str] = []

    def plain() -> Iterator[bytes]:
        try:
            yield SHORT
            yield SHORT
        finally:
            closed.append(threading.current_thread().name)

    async def later() -> AsyncIterator[bytes]:
        try:
            yield SHORT
            yield SHORT
        finally:
            closed.append("later")

    for body in (plain(), later()):
        answer = await adapted(Gives(lambda _, b=body: SourceResponse(b))).download(REQUEST)
        await answer.receive_into(memoryview(bytearray(10)))
        await answer.aclose()
    assert closed == ["plugin d7yfs", "later"]


async def test_an_answer_whose_close_fails_or_blocks() -> None:
    with gate() as door:

        def fails() -> None:
            raise ValueError

        for close in (fails, door.wait, lambda: 5):
            client = adapted(Gives(lambda _, c=close: SourceResponse(SHORT, close=c)), SOON)
            assert await content(await client.download(REQUEST)) == SHORT


async def test_a_client_whose_close_fails_or_blocks() -> None:
    closed: list[int] = []

    async def later() -> None:
        await trio.lowlevel.checkpoint()
        closed.append(1)

    def fails() -> None:
        raise SystemExit

    with gate() as door:
        for close in (fails, door.wait, later):
            await adapted(with_method("close", close), SOON).close()
    assert closed == [1]


async def test_an_answer_gives_nothing_after_an_error() -> None:
    def body() -> Iterator[bytes]:
        yield SHORT
        raise ValueError("no")

    answer = await adapted(Gives(lambda _: SourceResponse(body()))).download(REQUEST)
    buffer = memoryview(bytearray(len(SHORT)))
    assert await answer.receive_into(buffer) == len(SHORT)
    for _ in range(2):
        with pytest.raises(SourceError, match="ValueError: no"):
            await answer.receive_into(buffer)
    await answer.aclose()


async def test_nothing_is_written_to_a_buffer_that_was_taken_back() -> None:
    with gate() as door:

        class File:
            """Holds on to the buffer that it was given."""

            def readinto(self, buffer: memoryview) -> int:
                door.wait()
                buffer[:] = b"x" * len(buffer)
                return len(buffer)

        client = adapted(Gives(lambda _: SourceResponse(File())), SOON)  # type: ignore[arg-type]
        answer = await client.download(REQUEST)
        buffer = memoryview(bytearray(1000))
        with pytest.raises(SourceError, match="no further byte came"):
            await answer.receive_into(buffer)
        door.open()
        await trio.to_thread.run_sync(door.left.acquire)
        await answer.aclose()
        assert bytes(buffer) == bytes(1000)
