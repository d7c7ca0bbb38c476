"""``POST /v1/trees``: a folder's stream given to a program of this machine while it comes.

The answer are event lines; after a line that announces data come so many bytes as they are. The caller
makes files of them: the daemon never opens a path that a caller names.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import cast

import msgspec
import trio

from peer.downloads import download, failed, fetch_order
from peer.orders import (
    DownloadAgain,
    DownloadData,
    DownloadDone,
    DownloadFailed,
    DownloadOrder,
    DownloadProgress,
    StreamEvent,
)
from shared.errors import DragonetError, InvalidRequest
from shared.http.messages import Request, Response
from shared.http.router import Router
from shared.swarm.host import Host

CONTENT_TYPE = "application/vnd.dragonet.events"


class TreeApi:
    """The route; everything is carried out by the host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def add_routes(self, router: Router) -> None:
        """Mount it."""
        router.add("POST", "/v1/trees", self.tree)

    async def tree(self, request: Request) -> Response:
        """Begin; it is cancelled when the caller hangs up."""
        try:
            order = msgspec.json.decode(await request.body(), type=DownloadOrder)
        except msgspec.MsgspecError as error:
            raise InvalidRequest(f"the request cannot be read: {error}") from None
        if not order.tree:
            raise InvalidRequest(
                "the order does not tell what is wanted of the folder: ask for it as a download"
            )
        fetch_order(order, None)  # whatever is wrong with the order is said before the stream begins
        return Response(200, self._parts(order), (), CONTENT_TYPE)

    async def _parts(self, order: DownloadOrder) -> AsyncGenerator[bytes, None]:
        """Event lines, and data. Leaving the generator early cancels the download."""
        send, receive = trio.open_memory_channel[_Part](4)
        scope = trio.CancelScope()
        ended = trio.Event()

        def progress(event: DownloadProgress) -> None:
            with contextlib.suppress(trio.WouldBlock):  # a slow reader misses steps, never the end
                send.send_nowait(_Part(event))

        async def run() -> None:
            try:
                with scope:
                    try:
                        done: StreamEvent = await download(self._host, order, None, progress, _Taker(send))
                    except DragonetError as error:
                        done = failed(error)
                    await send.send(_Part(done))
            finally:
                send.close()
                ended.set()

        self._host.nursery.start_soon(run)
        try:
            async for part in receive:
                yield msgspec.json.encode(part.event) + b"\n"
                if part.data is not None:
                    yield cast(bytes, part.data)
                    part.sent.set()
                if isinstance(part.event, DownloadDone | DownloadFailed):
                    return
        finally:
            scope.cancel()
            with trio.CancelScope(shield=True):
                await ended.wait()


class _Part:
    """A line of the answer, and the bytes behind it, which are there until they are sent."""

    __slots__ = ("data", "event", "sent")

    def __init__(self, event: StreamEvent, data: memoryview | None = None) -> None:
        self.event = event
        self.data = data
        self.sent = trio.Event()


class _Taker:
    """Has the content sent as it comes."""

    def __init__(self, send: trio.MemorySendChannel[_Part]) -> None:
        self._send = send

    async def piece(self, data: memoryview) -> None:
        part = _Part(DownloadData(len(data)), data)
        await self._send.send(part)
        await part.sent.wait()

    async def again(self) -> None:
        await self._send.send(_Part(DownloadAgain()))
