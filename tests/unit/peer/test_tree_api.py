"""A folder's stream through the local API, to callers that behave and that do not."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from typing import Any, cast

import msgspec
import pytest
import trio
import trio.testing

from cdn.tree.order import TreeOrder
from peer.orders import DownloadDone, DownloadEvent, DownloadFailed, DownloadOrder
from peer.tree_api import TreeApi
from shared.errors import InvalidRequest
from shared.http.messages import Request, Response
from tests.unit.shared.swarm.worlds import OF, World, new_world

URL = "https://origin.example/top/"
TEXT = TreeOrder().text


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with new_world() as world:
        yield world


class Asking(Request):
    """A request with descriptors."""

    __slots__ = ("fds",)

    def take_fds(self) -> list[int]:
        return list(self.fds)


def asking(order: DownloadOrder, *descriptors: int) -> Request:
    made = Asking.make("POST", "/v1/trees", body=msgspec.json.encode(order))
    made.fds = descriptors
    return made


async def lines(answer: Response) -> list[DownloadEvent]:
    body = cast(Any, answer.body)
    events: list[DownloadEvent] = [msgspec.json.decode(line, type=DownloadEvent) async for line in body]
    answer.finish()
    return events


async def read_all(sock: socket.socket) -> bytes:
    def read() -> bytes:
        parts = []
        while part := sock.recv(1 << 20):
            parts.append(part)
        return b"".join(parts)

    return await trio.to_thread.run_sync(read)


def unframed(data: bytes) -> list[bytes]:
    blocks = []
    while data:
        length = int.from_bytes(data[:4], "big")
        blocks.append(data[4 : 4 + length])
        data = data[4 + length :]
    return blocks


async def test_the_stream_and_the_events(world: World) -> None:
    near, far = socket.socketpair()
    with near:
        answer = await TreeApi(world.host).tree(asking(DownloadOrder(URL, tree=TEXT), far.detach()))
        found: list[bytes] = []
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                found.append(await read_all(near))

            nursery.start_soon(read)
            events = await lines(answer)
    assert b"".join(unframed(found[0])) == OF.data
    assert isinstance(events[-1], DownloadDone)
    assert events[-1].length == len(OF.data)


async def test_who_hangs_up_ends_it(world: World) -> None:
    near, far = socket.socketpair()
    answer = await TreeApi(world.host).tree(asking(DownloadOrder(URL, tree=TEXT), far.detach()))
    near.close()
    events = await lines(answer)
    assert isinstance(events[-1], DownloadFailed)
    assert "gone" in events[-1].message


async def test_a_caller_that_takes_nothing_does_not_hold_the_cancellation_up(world: World) -> None:
    near, far = socket.socketpair()
    with near:
        answer = await TreeApi(world.host).tree(asking(DownloadOrder(URL, tree=TEXT), far.detach()))
        body = cast(Any, answer.body)
        await anext(body)
        while not world.host.sessions and not world.store.held(OF):
            await trio.lowlevel.checkpoint()
        await trio.sleep(0.05)  # a write fills the socket's buffers, and waits
        with trio.fail_after(10):
            await body.aclose()
        answer.finish()


@pytest.mark.parametrize("kind", ["none", "two", "file", "unconnected", "datagram"])
async def test_what_is_no_socket(world: World, kind: str) -> None:
    opened: list[socket.socket | int] = []
    if kind == "two":
        opened += socket.socketpair()
    elif kind == "file":
        opened.append(os.open("/dev/null", os.O_RDWR))
    elif kind == "unconnected":
        opened.append(socket.socket(socket.AF_UNIX))
    elif kind == "datagram":
        pair = socket.socketpair(type=socket.SOCK_DGRAM)
        opened.append(pair[0])
        pair[1].close()
    numbers = [each if isinstance(each, int) else each.detach() for each in opened]
    with pytest.raises(InvalidRequest, match="socket"):
        await TreeApi(world.host).tree(asking(DownloadOrder(URL, tree=TEXT), *numbers))
    for number in numbers:
        with pytest.raises(OSError, match="descriptor"):
            os.fstat(number)


@pytest.mark.parametrize(
    "order",
    [
        DownloadOrder(URL),
        DownloadOrder(URL, tree="v=9"),
        DownloadOrder(URL, tree=TEXT, range="0-1"),
        DownloadOrder(URL, tree=TEXT, digest="sha256:" + "0" * 64),
        DownloadOrder("no url", tree=TEXT),
    ],
)
async def test_orders_that_are_wrong(world: World, order: DownloadOrder) -> None:
    near, far = socket.socketpair()
    with near, pytest.raises(InvalidRequest):
        await TreeApi(world.host).tree(asking(order, far.detach()))
    assert near.fileno() == -1
