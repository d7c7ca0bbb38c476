"""Chunks that are sent out of their turn, without the task of the connection."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import h11
import pytest
import trio
import trio.testing

from shared.http.messages import Push, PushedBody, Request, Response
from shared.http.server import HttpServer
from tests.unit.shared.http.wires import parse, read_all

LAST = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\n\r\n"


class Body:
    """Chunks from a channel; ``push`` while the server lets it."""

    def __init__(self) -> None:
        self.say, self._chunks = trio.open_memory_channel[bytes](100)
        self.push: Push | None = None

    def attach(self, push: Push | None) -> None:
        self.push = push

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._chunks.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None


async def connect(body: Body, nursery: trio.Nursery, *, buffer: int = 0) -> trio.SocketStream:
    async def handler(request: Request) -> Response:
        return Response(200, body, endless=True)

    ours, theirs = socket.socketpair()
    if buffer:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    server, client = (trio.SocketStream(trio.socket.from_stdlib_socket(each)) for each in (theirs, ours))
    nursery.start_soon(HttpServer(handler).serve_stream, server)
    return client


@pytest.mark.parametrize("request_", [LAST, OLD])
async def test_pushed_chunks_stand_between_the_others(nursery: trio.Nursery, request_: bytes) -> None:
    body = Body()
    assert isinstance(body, PushedBody)
    client = await connect(body, nursery)
    await client.send_all(request_)
    await trio.testing.wait_all_tasks_blocked()
    push = body.push
    assert push is not None
    assert push(b"one,")
    body.say.send_nowait(b"two,")
    await trio.testing.wait_all_tasks_blocked()
    assert push(b"three,")
    assert push(b"four")
    body.say.close()
    data = await read_all(client)
    assert body.push is None
    await client.aclose()
    [(_, _, found)] = parse(data, "GET")
    assert found == b"one,two,three,four"


async def test_what_does_not_fit_is_not_pushed_and_nothing_is_lost_or_mixed(nursery: trio.Nursery) -> None:
    """A client that does not read: the socket takes a part of a chunk, and then nothing."""
    body = Body()
    client = await connect(body, nursery, buffer=4608)
    await client.send_all(LAST)
    await trio.testing.wait_all_tasks_blocked()
    push = body.push
    assert push is not None
    pushed = []
    for number in range(100_000):
        if not push(b"%07d" % number * 31):
            break
        pushed.append(b"%07d" % number * 31)
    else:
        pytest.fail("a socket that never is full")
    body.say.send_nowait(b"said")
    await trio.testing.wait_all_tasks_blocked()
    assert not push(b"while another chunk is being sent")
    body.say.close()
    [(_, _, found)] = parse(await read_all(client), "GET")
    await client.aclose()
    assert found == b"".join(pushed) + b"said"


async def test_a_client_that_has_gone_takes_nothing(nursery: trio.Nursery) -> None:
    body = Body()
    client = await connect(body, nursery)
    await client.send_all(LAST)
    await trio.testing.wait_all_tasks_blocked()
    push = body.push
    assert push is not None
    client.socket.close()
    assert not push(b"anybody?")
    await trio.testing.wait_all_tasks_blocked()
    assert body.push is None


async def test_streams_that_are_no_sockets_are_not_pushed_to(nursery: trio.Nursery) -> None:
    body = Body()
    client, end = trio.testing.memory_stream_pair()

    async def handler(request: Request) -> Response:
        return Response(200, body, endless=True)

    nursery.start_soon(HttpServer(handler).serve_stream, end)
    await client.send_all(LAST)
    await trio.testing.wait_all_tasks_blocked()
    assert body.push is not None
    assert not body.push(b"x")
    body.say.close()
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method="GET", target="/", headers=[("host", "h")]))
    http.receive_data(await read_all(client))
    assert isinstance(http.next_event(), h11.Response)
