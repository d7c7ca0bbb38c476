"""An answer that is being read."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterable, AsyncIterator
from typing import Self, cast

import httpcore
import httpx
import trio

from shared.http.client.errors import HttpConnectionLost
from shared.http.client.network import NetworkStream, mapped
from shared.http.fields import Headers
from shared.task.identity import redact_url

DIRECT_THRESHOLD = 1024 * 1024
"""From this many bytes on, the rest of a plain body is received straight into the caller's buffer; its
connection is not used again, which costs less than a copy of the body."""


class ClientStream:
    """An answer whose body is still on the way: ``status`` and ``headers`` now, bytes as they come.

    Use either :meth:`chunks` or :meth:`receive_into`. The bytes are as on the wire, without the transfer
    coding; a content coding is left alone.
    """

    def __init__(self, response: httpx.Response, url: str, read_timeout: float | None) -> None:
        self.status: int = response.status_code
        self.headers = Headers(
            (k.decode("latin-1").lower(), v.decode("latin-1")) for k, v in response.headers.raw
        )
        self._response = response
        self._url = url
        self._read_timeout = read_timeout
        self._parts: AsyncIterator[bytes] | None = None
        self._ended = False
        self._spare = memoryview(b"")
        self._direct: int | None = None  # bytes still to come outside of the HTTP library

    @property
    def content_length(self) -> int | None:
        """The announced length of the body in bytes; None when the end of the body is its only mark."""
        if "transfer-encoding" in self.headers:
            return None
        value = self.headers.get("content-length", "")
        return int(value) if value.isdecimal() else None

    def chunks(self) -> AsyncIterator[bytes]:
        """The body in pieces of whatever size arrives, never empty. Raises HttpError when it is cut.

        Not a generator: it may be left at any point without anything to close.
        """
        return _Chunks(self)

    async def receive(self) -> bytes:
        """The next bytes of the body; empty at its end. Raises HttpError when it is cut."""
        if self._spare:
            chunk, self._spare = bytes(self._spare), memoryview(b"")
            return chunk
        return await self._next()

    async def receive_into(self, buffer: memoryview) -> int:
        """Receive up to ``len(buffer)`` bytes of the body into a buffer; 0 at its end.

        Large plain bodies with a known length go from the socket to the buffer without another copy.
        """
        if not self._spare:
            if self._direct is not None:
                return await self._receive_direct(buffer)
            chunk = await self._next()
            if not chunk:
                return 0
            self._spare = memoryview(chunk)
            self._go_direct(len(chunk))
        count = min(len(buffer), len(self._spare))
        buffer[:count] = self._spare[:count]
        self._spare = self._spare[count:]
        return count

    async def _next(self) -> bytes:
        if self._ended:
            return b""
        with mapped(self._url):
            if self._parts is None:
                self._parts = cast(AsyncIterable[bytes], self._response.stream).__aiter__()
            try:
                while not (chunk := await anext(self._parts)):
                    pass
            except BaseException as error:
                self._ended = True
                if isinstance(error, StopAsyncIteration):
                    return b""
                raise
        return bytes(chunk)

    def _go_direct(self, first: int) -> None:
        # After a chunk of a body with a known length, the library holds no further byte of it.
        length = self.content_length
        stream = self._network()
        if length is not None and length - first >= DIRECT_THRESHOLD and stream is not None and stream.plain:
            self._direct = length - first

    async def _receive_direct(self, buffer: memoryview) -> int:
        stream = self._network()
        assert self._direct is not None
        assert stream is not None
        if not self._direct or not len(buffer):
            return 0
        with mapped(self._url):
            count = await stream.receive_into(buffer[: self._direct], self._read_timeout)
        if not count:
            raise HttpConnectionLost(
                f"{redact_url(self._url)} closed the connection {self._direct} bytes before the body's end"
            )
        self._direct -= count
        return count

    def _network(self) -> NetworkStream | None:
        stream = self._response.extensions.get("network_stream")
        return stream if isinstance(stream, NetworkStream) else None

    async def aclose(self) -> None:
        """Give the connection back (body read to its end) or close it."""
        with trio.CancelScope(shield=True):
            if self._parts is not None and not self._ended:
                # The library's generators must not be left half-run: without a connection they end at once.
                stream = self._network()
                if stream is not None:
                    await stream.aclose()
                with contextlib.suppress(httpcore.NetworkError, httpcore.ProtocolError, StopAsyncIteration):
                    while True:
                        await anext(self._parts)
                self._ended = True
            await self._response.aclose()

    def __repr__(self) -> str:
        state = "read" if self._ended else "open"
        return f"<ClientStream {self.status} of {redact_url(self._url)}, {state}>"


class _Chunks:
    __slots__ = ("_stream",)

    def __init__(self, stream: ClientStream) -> None:
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._stream.receive()
        if not chunk:
            raise StopAsyncIteration
        return chunk
