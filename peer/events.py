"""A download as a stream of event lines: what the local API answers while it works."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable

import msgspec
import trio

from peer.downloads import failed
from peer.orders import DownloadDone, DownloadEvent, DownloadProgress
from shared.errors import DragonetError

NDJSON = "application/x-ndjson"

Work = Callable[[Callable[[DownloadProgress], None]], Awaitable[DownloadDone]]


async def event_lines(nursery: trio.Nursery, work: Work) -> AsyncGenerator[bytes, None]:
    """The event lines of one download, which ``work`` carries out in ``nursery``. Leaving the generator early
    cancels it."""
    send, receive = trio.open_memory_channel[DownloadEvent](4)

    def progress(event: DownloadProgress) -> None:
        with contextlib.suppress(trio.WouldBlock):  # a slow reader misses steps, never the end
            send.send_nowait(event)

    async def run() -> None:
        async with send:
            try:
                done: DownloadEvent = await work(progress)
            except DragonetError as error:
                done = failed(error)
            await send.send(done)

    scope = trio.CancelScope()
    ended = trio.Event()

    async def scoped() -> None:
        try:
            with scope:
                await run()
        finally:
            ended.set()

    nursery.start_soon(scoped)
    try:
        while True:
            try:
                event = await receive.receive()
            except trio.EndOfChannel:
                return
            yield msgspec.json.encode(event) + b"\n"
            if not isinstance(event, DownloadProgress):
                return
    finally:
        scope.cancel()
        with trio.CancelScope(shield=True):
            await ended.wait()
