"""The bytes of an answer, however its chunks and the buffers for them fall."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from cdn.sources.interface import SourceCut
from tests.programs import require_module
from tests.unit.cdn.sources.objectstore.opening import open_client


class FakeResult:
    """What obstore gives for a get, with the chunks that are wanted."""

    attributes: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, chunks: Iterator[bytes], length: int, etag: str | None = '"a"') -> None:
        self.chunks = chunks
        moment = datetime.datetime(2015, 10, 21, tzinfo=datetime.UTC)
        self.meta = {"e_tag": etag, "last_modified": moment, "size": length, "path": "key", "version": None}
        self.range = (0, length)

    def stream(self, min_chunk_size: int) -> Iterator[bytes]:
        return self.chunks


def respond(result: FakeResult, limiter: trio.CapacityLimiter | None = None, idle: float = 30) -> Any:
    require_module("obstore")
    from cdn.sources.objectstore.body import ObjectResponse
    from cdn.sources.objectstore.client import ObjectStoreSource
    from cdn.sources.objectstore.credentials import Credentials
    from cdn.sources.objectstore.troubles import Asked

    client = open_client("s3", {})
    assert isinstance(client, ObjectStoreSource)
    asked = Asked(client.service, Credentials(), "s3://bucket/key", "bucket")
    limiter = limiter or trio.CapacityLimiter(1)
    return ObjectResponse(result, "s3://bucket/key", asked, limiter, part=False, idle=idle)  # type: ignore[arg-type]


@pytest.mark.parametrize("hasty", [True, False], ids=["a chunk at a time", "many chunks at a time"])
@given(chunks=st.lists(st.binary(max_size=12), max_size=12), sizes=st.lists(st.integers(1, 30), min_size=1))
def test_all_bytes_come_once(hasty: bool, chunks: list[bytes], sizes: Sequence[int]) -> None:
    require_module("obstore")
    from cdn.sources.objectstore import body

    content = b"".join(chunks)

    async def main() -> bytes:
        response, found = respond(FakeResult(iter(chunks), len(content))), b""
        async with response:
            for number in range(1000):
                buffer = memoryview(bytearray(sizes[number % len(sizes)]))
                count = await response.receive_into(buffer)
                if not count:
                    return found
                found += buffer[:count]
        raise AssertionError("no end")

    with pytest.MonkeyPatch.context() as patch:
        if hasty:
            patch.setattr(body, "_SLICE", -1.0)
        assert trio.run(main) == content


async def test_an_answer_that_is_too_short() -> None:
    response = respond(FakeResult(iter([b"abc", b"de"]), 10))
    assert await response.receive_into(memoryview(bytearray(20))) == 5
    with pytest.raises(SourceCut, match="after 5 of 10 bytes: the answer ended"):
        await response.receive_into(memoryview(bytearray(20)))


async def test_the_end_is_seen_with_the_last_byte() -> None:
    chunks = iter([b"abc", b"de"])
    response = respond(FakeResult(chunks, 5))
    assert await response.receive_into(memoryview(bytearray(5))) == 5
    assert chunks.__length_hint__() == 0  # type: ignore[attr-defined]
    assert await response.receive_into(memoryview(bytearray(5))) == 0


async def test_a_thread_that_is_left_behind_keeps_its_hands_off(mock_clock: trio.testing.MockClock) -> None:
    limiter, go, waiting = trio.CapacityLimiter(1), threading.Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()

    def late() -> Iterator[bytes]:
        yield b"first"
        token.run_sync_soon(waiting.set)
        go.wait(60)
        yield b"too late"

    response = respond(FakeResult(late(), 100), limiter)
    buffer = memoryview(bytearray(50))
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            await waiting.wait()
            mock_clock.jump(31)

        assert await response.receive_into(buffer) == 5
    buffer[:] = bytes(50)
    go.set()
    async with limiter:  # the thread has ended
        assert not any(buffer)
    with pytest.raises(SourceCut, match="sent nothing for 30 seconds"):
        await response.receive_into(buffer)
    await response.aclose()


async def test_an_etag_gets_its_quotes() -> None:
    assert respond(FakeResult(iter([]), 0, etag="0x8D")).etag == '"0x8D"'
    assert respond(FakeResult(iter([]), 0, etag='W/"x"')).etag == 'W/"x"'
    assert respond(FakeResult(iter([]), 0, etag=None)).etag == ""
