"""Object stores read by the engine, and stores that stand still, break off or change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from cdn.sources.interface import RangeNotSatisfiable, SourceCut, SourceRequest
from shared.errors import SourceError
from tests.programs import require_module
from tests.unit.cdn.fakes import (
    MIB,
    Behaviour,
    FakeOrigin,
    MemorySink,
    Seen,
    job,
    random_bytes,
    reading,
    serving,
)
from tests.unit.cdn.sources.examples import read
from tests.unit.cdn.sources.objectstore.opening import opened

URL = "s3://bucket/key"
DATE = "Wed, 21 Oct 2015 07:28:00 GMT"


def hold(origin: FakeOrigin, content: bytes, **rest: object) -> dict[str, dict[str, str]]:
    """Have the origin hold ``bucket/key``; gives the options to read it as an S3 store."""
    require_module("obstore")
    origin.behaviours["/bucket/key"] = Behaviour(content, last_modified=DATE, **rest)  # type: ignore[arg-type]
    return {"s3": {"endpoint": f"http://{origin.address}"}}


async def test_parallel_reads() -> None:
    content = random_bytes(40 * MIB)
    async with serving() as origin:
        options = hold(origin, content)
        async with reading(options=options) as (reader, _):
            sink = MemorySink()
            await reader.read(job(URL), sink)
    assert sink.final is not None
    assert sink.content == content
    assert [seen.status for seen in origin.seen] == [206] * 3
    assert [seen.headers.get("if-match") for seen in origin.seen] == [None, '"one"', '"one"']


async def test_a_broken_answer_is_resumed() -> None:
    content = random_bytes(6 * MIB)
    async with serving() as origin:
        options = hold(origin, content, cuts=dict.fromkeys(range(4), MIB + 5))
        async with reading(options=options) as (reader, _):
            sink = MemorySink()
            await reader.read(job(URL), sink)
    assert sink.content == content
    from cdn.sources.objectstore.body import MIN_CHUNK

    again = sum(seen.body for seen in origin.seen) - len(content)
    assert again < MIN_CHUNK, "next to nothing is read twice"


async def test_a_part_is_given_before_the_error_behind_it() -> None:
    content = random_bytes(MIB)
    async with serving() as origin:
        options = hold(origin, content, cuts={n: 300_000 if n == 0 else 0 for n in range(9)})["s3"]
        from cdn.sources.objectstore.body import MIN_CHUNK

        async with opened("s3", options) as client:
            response = await client.download(SourceRequest(URL))
            buffer = memoryview(bytearray(2 * MIB))
            received = await response.receive_into(buffer)
            assert 300_000 - MIN_CHUNK < received <= 300_000
            assert buffer[:received] == content[:received]
            for _ in range(2):
                with pytest.raises(SourceCut, match=rf"broke off after {received} of 1048576 bytes"):
                    await response.receive_into(buffer)


async def test_content_that_changes_is_read_anew() -> None:
    old, new = random_bytes(40 * MIB), random_bytes(38 * MIB, seed=2)
    async with serving() as origin:
        options = hold(origin, old)

        def change(seen: Seen) -> None:
            if len(origin.seen) == 3:
                origin.change("/bucket/key", content=new, etag='"two"')

        origin.hook = change
        async with reading(options=options, connections=1) as (reader, _):
            sink = MemorySink()
            await reader.read(job(URL), sink)
    assert sink.content == new
    assert len({meta.version for meta in sink.metas}) == 2


async def test_ranges_that_are_not_honoured() -> None:
    content = random_bytes(3 * MIB)
    async with serving() as origin:
        options = hold(origin, content, ranges="ignore")
        async with reading(options=options) as (reader, _):
            sink = MemorySink()
            await reader.read(job(URL), sink)
    assert sink.content == content


# --- stores that stand still ----------------------------------------------------------------------


async def silent(after: bytes, stream: trio.SocketStream) -> None:
    """Gives the same answer to every request, and none when there is none."""
    while await stream.receive_some():
        await stream.send_all(after)


@asynccontextmanager
async def standing_still(after: bytes = b"") -> AsyncIterator[dict[str, str]]:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, partial(silent, after), 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        yield {"endpoint": f"http://127.0.0.1:{port}"}
        nursery.cancel_scope.cancel()


async def test_a_store_that_does_not_answer() -> None:
    settings = {"header_timeout": 0.2, "idle_timeout": 0.2}
    async with standing_still() as options, opened("s3", options, **settings) as client:
        for call in (client.download, client.get_content_length, client.is_support_range, client.list):
            with pytest.raises(SourceError, match="did not answer") as caught:
                await call(SourceRequest(URL))
            assert caught.value.fault == "reader"


async def test_a_store_that_stops_in_the_middle() -> None:
    head = (
        f'HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\nETag: "a"\r\nLast-Modified: {DATE}\r\n\r\n'.encode()
    )
    settings = {"header_timeout": 5.0, "idle_timeout": 0.3}
    async with standing_still(head + b"x" * 200_000) as options, opened("s3", options, **settings) as client:
        response = await client.download(SourceRequest(URL))
        with pytest.raises(SourceCut, match=r"sent nothing for 0\.3 seconds"):
            await read(response)


async def test_a_cancelled_read_gives_the_buffer_back() -> None:
    head = (
        f'HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\nETag: "a"\r\nLast-Modified: {DATE}\r\n\r\n'.encode()
    )
    async with standing_still(head) as options, opened("s3", options) as client:
        response = await client.download(SourceRequest(URL))
        with trio.move_on_after(0.05) as scope:
            await response.receive_into(memoryview(bytearray(1000)))
        assert scope.cancelled_caught
        with pytest.raises(SourceCut, match="after 0 of 1000000 bytes: it was given up"):
            await response.receive_into(memoryview(bytearray(1000)))
        await response.aclose()


async def test_nobody_answers() -> None:
    with trio.socket.socket() as taken:
        await taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        async with opened("s3", {"endpoint": f"http://127.0.0.1:{port}"}) as client:
            with pytest.raises(
                SourceError, match=rf"no connection to 127\.0\.0\.1:{port} \(Connection ref"
            ) as caught:
                await client.download(SourceRequest(URL))
    assert caught.value.fault == "reader"


@pytest.mark.parametrize(
    ("answer", "words", "fault", "status"),
    [
        (b"hello\r\n\r\n", "not HTTP", "reader", None),
        (
            b"HTTP/1.1 301 Moved\r\nContent-Length: 0\r\n\r\n",
            r"set source\.options\.s3\.region",
            "reader",
            301,
        ),
        (b"HTTP/1.1 200 OK\r\nETag: x\r\n\r\n", "not one of an object store", "origin", None),
        (b"HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n", "answered 429", "origin", 429),
        (
            b"HTTP/1.1 400 Bad\r\nContent-Length: 18\r\n\r\n<Code>A</Code>sig=",
            r"answered 400 \(A\)",
            "origin",
            400,
        ),
        (
            b"HTTP/1.1 400 Bad\r\nContent-Length: 25\r\n\r\n<Code>ExpiredToken</Code>",
            r"without credentials \(400, ExpiredToken\)",
            "reader",
            400,
        ),
        (b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", "without credentials", "reader", 401),
    ],
)
async def test_wrong_answers(answer: bytes, words: str, fault: str, status: int | None) -> None:
    async with standing_still(answer) as options, opened("s3", options) as client:
        with pytest.raises(SourceError, match=words) as caught:
            await client.download(SourceRequest(URL))
    assert (caught.value.fault, caught.value.origin_status) == (fault, status)
    assert "\n" not in str(caught.value)


async def test_a_part_without_bytes_is_beyond_the_end() -> None:
    answer = b"HTTP/1.1 206 Part\r\nContent-Length: 0\r\nContent-Range: bytes 100-99/100\r\n\r\n"
    async with standing_still(answer) as options, opened("s3", options) as client:
        with pytest.raises(RangeNotSatisfiable):  # as an emulator of Azure answers
            await client.download(SourceRequest(URL, range=(100, None)))


async def test_an_object_without_validators() -> None:
    async with serving() as origin:
        options = hold(origin, b"hello")["s3"]
        origin.behaviours["/bucket/key"] = Behaviour(b"hello", etag="")
        async with opened("s3", options) as client:
            response = await client.download(SourceRequest(URL))
            assert (response.etag, response.last_modified) == ("", "")
            assert await read(response) == b"hello"


async def test_few_stores_are_kept() -> None:
    async with serving() as origin:
        options = hold(origin, b"hello")["s3"]
        async with opened("s3", options) as client:
            for number in range(40):
                origin.behaviours[f"/bucket-{number}/key"] = Behaviour(b"hello")
                assert (
                    await read(await client.download(SourceRequest(f"s3://bucket-{number}/key"))) == b"hello"
                )
            assert "32 stores" in repr(client)
