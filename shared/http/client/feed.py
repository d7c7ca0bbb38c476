"""Answers that come bit by bit for hours and mostly say nothing but that the server is there.

A machine may have dozens of them. What the server says only to be heard (``quiet``: a chunk of just these bytes) wakes
nobody: the kernel holds it back (SO_RCVLOWAT), and :class:`Feeds` looks at all of them together, a few times in the
longest silence that is allowed. Whatever else comes is given at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from math import inf
from typing import Protocol, Self

import h11
import httpcore
import trio

from shared.http.client.network import NetworkStream, mapped, seconds

RECEIVE_BYTES = 64 * 1024
LOOKS = 6
"""Looks in the longest silence; it is up by the last but one at the earliest."""


class Answer(Protocol):
    """What is read of an answer; also a ``ClientStream``."""

    status: int

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, but for what is quiet. Raises HttpError when it is cut, or silent for too long."""


class Feeds:
    """Looks at quiet feeds, all at once. Run it where feeds are read; without it they look after themselves."""

    def __init__(self) -> None:
        self.running = False
        self._waiting: dict[Feed, None] = {}
        self._period = inf
        self._stirred = trio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        self.running = True
        try:
            while True:
                self._stirred = trio.Event()
                self._period = min((feed.patience for feed in self._waiting), default=inf) / LOOKS
                with trio.move_on_after(self._period) as looking:
                    await self._stirred.wait()
                if looking.cancelled_caught:
                    now = trio.current_time()
                    for feed in list(self._waiting):
                        feed.look(now, self._period)
        finally:
            self.running = False

    def add(self, feed: Feed) -> None:
        """It waits."""
        self._waiting[feed] = None
        if feed.patience / LOOKS < self._period:
            self._stirred.set()

    def discard(self, feed: Feed) -> None:
        """It does not wait any more."""
        self._waiting.pop(feed, None)

    def __repr__(self) -> str:
        return f"<Feeds, {len(self._waiting)} wait>"


class Feed:
    """One such answer; see :meth:`HttpClient.feed`. Its connection is its own."""

    def __init__(
        self, stream: NetworkStream, url: str, patience: float | None, quiet: bytes, feeds: Feeds | None
    ) -> None:
        self.status = 0
        self.patience = seconds(patience)
        self._stream = stream
        self._url = url
        self._quiet = b"%x\r\n%b\r\n" % (len(quiet), quiet) if quiet else b""
        self._feeds = feeds
        self._http = h11.Connection(h11.CLIENT)
        self._between = False
        self._heard = 0.0
        self._found: bytes | None = None
        self._silent = False
        self._waiting = trio.CancelScope()

    async def ask(self, target: bytes, fields: list[tuple[bytes, bytes]]) -> None:
        """Send the GET, and take the answer's head. Raises HttpError."""
        with mapped(self._url):
            try:
                request = self._http.send(h11.Request(method="GET", target=target, headers=fields)) or b""
            except h11.LocalProtocolError as error:
                raise httpcore.LocalProtocolError(str(error)) from error
            await self._stream.write(request + (self._http.send(h11.EndOfMessage()) or b""), self.patience)
            while not isinstance(event := await self._event(), h11.Response):
                if not isinstance(event, h11.InformationalResponse):
                    raise httpcore.RemoteProtocolError("no answer")
        self.status = event.status_code
        coding = [value.lower() for name, value in event.headers if name == b"transfer-encoding"]
        self._between = coding == [b"chunked"]

    def chunks(self) -> Self:
        """The body as it comes, but for what is quiet. Raises HttpError."""
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        with mapped(self._url):
            while isinstance(event := await self._event(), h11.Data):
                self._between = event.chunk_end
                if event.data:
                    return bytes(event.data)
            if not isinstance(event, h11.EndOfMessage):
                raise httpcore.RemoteProtocolError("an answer without its end")
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Close the connection at once."""
        await self._stream.aclose()

    def look(self, now: float, period: float) -> None:
        """Take what has come without waking anybody; or find that the server is silent."""
        try:
            data = self._stream.take_now(RECEIVE_BYTES)
        except httpcore.ReadError:
            self._waiting.cancel()  # who reads is told
            return
        if data is None:
            self._silent = now - self._heard > self.patience - period
            if self._silent:
                self._waiting.cancel()
            return
        self._heard = now
        told = self._told(data)
        if told or not data:
            self._found = told
            self._waiting.cancel()

    async def _event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(await self._more())
        except h11.RemoteProtocolError as error:
            raise httpcore.RemoteProtocolError(str(error)) from error
        return event

    async def _more(self) -> bytes:
        """What is not quiet; nothing at the end of the stream."""
        while True:
            feeds = self._feeds
            between = self._quiet != b"" and self._between and not self._http.trailing_data[0]
            if between and feeds is not None and feeds.running and self._stream.plain:
                data = await self._hear(feeds)
            else:
                data = await self._stream.read(RECEIVE_BYTES, self.patience)
            told = self._told(data) if between else data
            if told or not data:
                self._between = False
                return told

    def _told(self, data: bytes) -> bytes:
        while data.startswith(self._quiet):
            data = data[len(self._quiet) :]
        return data

    async def _hear(self, feeds: Feeds) -> bytes:
        """Wait for more than a single quiet chunk, however many of these come one by one."""
        while True:
            self._heard, self._silent = trio.current_time(), False
            with trio.CancelScope() as self._waiting:
                feeds.add(self)
                try:
                    await self._stream.wait_for(len(self._quiet) + 1)
                finally:
                    feeds.discard(self)
            found, self._found = self._found, None
            if found is None:
                found = self._stream.take_now(RECEIVE_BYTES)
            if found is not None:
                return found
            if self._silent:
                raise httpcore.ReadTimeout(f"no byte for {self.patience:g} s")

    def __repr__(self) -> str:
        return f"<Feed {self.status} of {self._url}>"
