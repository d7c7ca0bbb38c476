"""The stream of a connection that has left HTTP behind (CONNECT, 101)."""

from __future__ import annotations

import trio


class HandedOverStream(trio.abc.HalfCloseableStream):
    """The connection's stream; bytes that the client sent early are received first."""

    def __init__(self, stream: trio.abc.Stream, early: bytes = b"") -> None:
        self._stream = stream
        self._early = early

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if not self._early:
            return await self._stream.receive_some(max_bytes)
        await trio.lowlevel.checkpoint()
        taken = self._early if max_bytes is None else self._early[:max_bytes]
        self._early = self._early[len(taken) :]
        return taken

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Tell the end of our bytes, where the stream below can (TLS cannot: then nothing is sent)."""
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()
        else:
            await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await self._stream.aclose()
