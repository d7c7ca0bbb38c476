"""Answers that come for hours: quiet chunks wake nobody, all others come at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing

from shared.http.client import (
    Feeds,
    HttpClient,
    HttpConnectError,
    HttpConnectionLost,
    HttpProtocolError,
    HttpTimeout,
)
from shared.http.client.feed import Answer

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
QUIET = b"\0\0\0\4beat"
BEAT = b"8\r\n" + QUIET + b"\r\n"
Talk = Callable[[trio.SocketStream], Awaitable[None]]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@asynccontextmanager
async def served(talk: Talk, heads: list[bytes] | None = None) -> AsyncIterator[str]:
    """The URL of a server that says ``talk`` after the request's head, which it adds to ``heads``, and hangs up."""

    async def serve(stream: trio.SocketStream) -> None:
        head = await stream.receive_some()
        if heads is not None:
            heads.append(head)
        with suppress(trio.BrokenResourceError):  # the client may have seen enough
            await talk(stream)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/a?b=c"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def feeding(
    talk: Talk, *, looked_at: bool, patience: float = 30.0, quiet: bytes = QUIET
) -> AsyncIterator[Answer]:
    """An answer from such a server."""
    heads: list[bytes] = []
    feeds = Feeds()
    async with served(talk, heads) as url, trio.open_nursery() as nursery, HttpClient() as client:
        if looked_at:
            nursery.start_soon(feeds.run)
            await trio.testing.wait_all_tasks_blocked()
        async with client.feed(
            url, headers={"Accept": "x/y"}, timeout=10, read_timeout=patience, quiet=quiet, feeds=feeds
        ) as answer:
            assert heads[0].startswith(b"GET /a?b=c HTTP/1.1\r\n")
            assert b"Accept: x/y\r\n" in heads[0]
            yield answer
        nursery.cancel_scope.cancel()


async def read(answer: Answer, most: int = 1_000_000) -> bytes:
    data = b""
    async for part in answer.chunks():
        data += part
        if len(data) >= most:
            break
    return data


both = pytest.mark.parametrize("looked_at", [False, True])


@both
async def test_what_is_said_is_given_and_what_is_quiet_is_not(looked_at: bool) -> None:
    async def talk(stream: trio.SocketStream) -> None:
        await stream.send_all(HEAD + chunk(b"welcome") + BEAT)
        for number in range(20):
            await stream.send_all(BEAT * (number % 3))
            await trio.lowlevel.checkpoint()
            await stream.send_all(chunk(b"<%d>" % number))
        await stream.send_all(BEAT + b"0\r\n\r\n")

    async with feeding(talk, looked_at=looked_at) as answer:
        assert answer.status == 200
        said = b"welcome" + b"".join(b"<%d>" % number for number in range(20))
        assert (await read(answer)).replace(QUIET, b"") == said


@both
async def test_chunks_may_come_byte_by_byte(looked_at: bool) -> None:
    async def talk(stream: trio.SocketStream) -> None:
        for byte in HEAD + BEAT + chunk(b"one") + BEAT + BEAT + chunk(b"two") + b"0\r\n\r\n":
            await stream.send_all(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked(0.0005)

    async with feeding(talk, looked_at=looked_at) as answer:
        assert (await read(answer)).replace(QUIET, b"") == b"onetwo"


@both
async def test_what_is_quiet_for_one_is_a_word_for_another(looked_at: bool) -> None:
    async def talk(stream: trio.SocketStream) -> None:
        await stream.send_all(HEAD + BEAT + b"0\r\n\r\n")

    async with feeding(talk, looked_at=looked_at, quiet=b"") as answer:
        assert await read(answer) == QUIET


@both
async def test_signs_of_life_keep_it_open_and_silence_ends_it(
    looked_at: bool, hasty_clock: trio.testing.MockClock
) -> None:
    async def talk(stream: trio.SocketStream) -> None:
        await stream.send_all(HEAD)
        for _ in range(50):  # longer than the patience in all
            await trio.sleep(0.03)
            await stream.send_all(BEAT)
        await stream.send_all(chunk(b"still here"))
        await trio.sleep_forever()

    async with feeding(talk, looked_at=looked_at, patience=1.0) as answer:
        assert await read(answer, 10) == b"still here"
        with pytest.raises(HttpTimeout):
            await read(answer)


@both
@pytest.mark.parametrize("last", [b"", BEAT, chunk(b"x"), b"5\r\nab"])
async def test_an_answer_that_is_cut(looked_at: bool, last: bytes) -> None:
    async def talk(stream: trio.SocketStream) -> None:
        await stream.send_all(HEAD + last)

    async with feeding(talk, looked_at=looked_at) as answer:
        with pytest.raises(HttpConnectionLost):
            await read(answer)


@both
@pytest.mark.parametrize("last", [b"zz\r\n", BEAT + b"nonsense\r\n", b"\r\n\r\n"])
async def test_an_answer_that_is_no_http(looked_at: bool, last: bytes) -> None:
    async def talk(stream: trio.SocketStream) -> None:
        await stream.send_all(HEAD + last)
        await trio.sleep_forever()

    async with feeding(talk, looked_at=looked_at) as answer:
        with pytest.raises(HttpProtocolError):
            await read(answer)


@both
@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 8\r\n\r\n", QUIET),
        (b"HTTP/1.0 200 OK\r\n\r\n", QUIET + QUIET),
        (b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", b"abc"),
    ],
)
async def test_bodies_of_other_kinds_are_read_as_they_are(looked_at: bool, head: bytes, body: bytes) -> None:
    async def talk(stream: trio.SocketStream) -> None:
        await stream.send_all(head + body)

    async with feeding(talk, looked_at=looked_at) as answer:
        assert answer.status in (200, 404)
        assert await read(answer) == body


@pytest.mark.parametrize("head", [b"SSH-2.0\r\n\r\n", b""])
async def test_who_does_not_answer_in_http(head: bytes) -> None:
    async def talk(stream: trio.SocketStream) -> None:
        await stream.send_all(head)

    async with served(talk) as url, HttpClient() as client:
        with pytest.raises((HttpProtocolError, HttpConnectionLost)):
            await open_and_leave(client, url)


async def test_who_is_not_there() -> None:
    async with HttpClient() as client:
        with pytest.raises(HttpConnectError):
            await open_and_leave(client, "http://127.0.0.1:1/")


async def test_a_head_that_does_not_come() -> None:
    async def talk(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with served(talk) as url, HttpClient() as client:
        with pytest.raises(HttpTimeout):
            await open_and_leave(client, url, timeout=0.05)


async def open_and_leave(client: HttpClient, url: str, timeout: float = 10) -> None:
    async with client.feed(url, timeout=timeout):
        pass
