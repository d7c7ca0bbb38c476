"""Talking to a server over in-memory streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import h11
import trio
import trio.testing

from shared.http.messages import Handler
from shared.http.server import HttpServer, ServerLimits

Client = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]


@asynccontextmanager
async def serving(handler: Handler | HttpServer, limits: ServerLimits | None = None) -> AsyncIterator[Client]:
    """A client's end of a connection to a server."""
    server = (
        handler if isinstance(handler, HttpServer) else HttpServer(handler, limits=limits or ServerLimits())
    )
    client, end = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, end)
        yield client
        nursery.cancel_scope.cancel()


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    """Everything up to the end; a broken connection counts as an end."""
    data = b""
    try:
        while chunk := await stream.receive_some():
            data += chunk
    except trio.BrokenResourceError:
        pass
    return data


async def exchange(handler: Handler | HttpServer, data: bytes, limits: ServerLimits | None = None) -> bytes:
    """Send all of ``data``, tell the end, and give back everything that the server answers."""
    async with serving(handler, limits) as client:
        await client.send_all(data)
        await client.send_eof()
        return await read_all(client)


def parse(data: bytes, *methods: str) -> list[tuple[int, dict[str, str], bytes]]:
    """The responses in ``data`` as (status, headers, body), read by h11 as a client that sent ``methods``.

    Raises h11.RemoteProtocolError when they are not valid or cut.
    """
    found = []
    client = h11.Connection(h11.CLIENT)
    client.receive_data(data)
    client.receive_data(b"")
    for method in methods:
        client.send(h11.Request(method=method, target="/", headers=[("host", "h")]))
        client.send(h11.EndOfMessage())
        status, headers, body = 0, {}, b""
        while True:
            event = client.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
                headers = {n.decode(): v.decode("latin-1") for n, v in event.headers}
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            elif not isinstance(event, h11.InformationalResponse):
                raise h11.RemoteProtocolError(f"unexpected {event!r}")
        found.append((status, headers, body))
        if len(found) < len(methods):
            client.start_next_cycle()
    return found
