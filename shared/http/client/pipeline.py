"""Many small GETs on one kept-alive connection, asked for ahead of their answers (RFC 9112 §9.3.2).

An HTTP library takes half a millisecond for a request, which is ten times what a small file takes to come.
The HTTP spoken here is small on purpose: an HTTP/1.1 answer with status 200 and one Content-Length. Whatever
else comes is left to the ordinary client, which asks for that URL again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

import httpcore

from shared.http.client.network import NetworkStream, mapped

MAX_HEAD = 64 * 1024
BUFFER = 1024 * 1024
"""Bytes received at once at most (more where a single answer may be longer)."""
AHEAD = 16 * 1024
"""Bytes of requests under way at most: they fit into any socket's buffers, so that sending them never waits
for a server that itself waits for its answers to be taken."""
GATHER = 64 * 1024
GATHER_FROM = 8
"""Bytes waited for at once while at least so many answers are under way: each look at the socket costs as much
as a small answer."""
MAX_SKIPPED = 64 * 1024
"""Longest body of another answer that is read to keep the connection."""

_FIELDS = re.compile(
    rb"\r\n(content-length|transfer-encoding|content-encoding|connection)[ \t]*:[ \t]*([^\r\n]*)",
    re.IGNORECASE,
)


class PipelineAnswers(Protocol):
    """Gets the answers, in the order of the requests; ``number`` counts from 0."""

    def content(self, number: int, data: memoryview) -> None:
        """A plain answer's whole body. ``data`` is used again after the call."""

    def large(self, number: int) -> None:
        """A plain answer whose body is longer than the limit."""

    async def pause(self) -> None:
        """Between two receptions: waits until more can be taken."""


class Pipeline:
    """One connection. Made by :meth:`HttpClient.pipeline`; not for use by two tasks at a time.

    ``closed`` once it is of no more use: the server said so, or an answer could not be read past.
    """

    def __init__(
        self, stream: NetworkStream, fields: bytes, limit: int, url: str, patience: float | None
    ) -> None:
        self._stream = stream
        self._fields = fields
        self._limit = limit
        self._url = url
        self._patience = patience
        self._buffer = bytearray(max(BUFFER, limit) + MAX_HEAD)
        self._proven = False
        self.closed = False

    async def get(self, targets: Sequence[bytes], answers: PipelineAnswers) -> int:
        """Ask for ``targets`` (as they stand in a request line); gives how many of them are settled.

        What is settled without a call of ``answers`` was answered in an unusual way. Fewer than all where the
        connection ended: the others are to be asked for on another one. Raises HttpError when it ended before
        anything was settled.
        """
        exchange = _Exchange(self._buffer, len(targets), self._limit, answers)
        try:
            with mapped(self._url):
                await self._run(targets, exchange)
        except BaseException as error:
            await self.aclose()
            if exchange.settled and isinstance(error, Exception):
                return exchange.settled  # what is wrong will show again with what is left
            raise
        if exchange.over:
            await self.aclose()
        return exchange.settled

    async def _run(self, targets: Sequence[bytes], exchange: _Exchange) -> None:
        requests = [b"GET %b HTTP/1.1\r\n%b\r\n" % (target, self._fields) for target in targets]
        ends = [0]  # of each request, in bytes since the first
        for request in requests:
            ends.append(ends[-1] + len(request))
        asked = 0
        while exchange.settled < len(targets) and not exchange.over:
            ahead = ends[asked] - ends[exchange.settled]
            if asked < len(targets) and (not ahead or (self._proven and ahead < AHEAD // 2)):
                first, asked = asked, asked + 1
                while (
                    self._proven
                    and asked < len(targets)
                    and ends[asked + 1] - ends[exchange.settled] <= AHEAD
                ):
                    asked += 1
                await self._stream.write(b"".join(requests[first:asked]), self._patience)
            several = asked - exchange.settled >= GATHER_FROM
            count = await self._receive(exchange.room(), GATHER if several else 1)
            if not count:
                raise httpcore.RemoteProtocolError("the server disconnected")
            exchange.take(count)
            self._proven = self._proven or exchange.settled > 0
            await exchange.answers.pause()

    async def _receive(self, buffer: memoryview, least: int) -> int:
        if self._stream.plain:
            return await self._stream.receive_several(buffer, least, self._patience)
        data = await self._stream.read(len(buffer), self._patience)
        buffer[: len(data)] = data
        return len(data)

    async def aclose(self) -> None:
        """Close the connection at once."""
        self.closed = True
        await self._stream.aclose()

    def __repr__(self) -> str:
        return f"<Pipeline{' closed' if self.closed else ''}>"


class _Exchange:
    """The answers to so many requests, cut out of what is received. ``over``: no more can be read. Pure."""

    def __init__(self, buffer: bytearray, expected: int, limit: int, answers: PipelineAnswers) -> None:
        self.settled = 0
        self.over = False
        self.answers = answers
        self._expected = expected
        self._limit = limit
        self._buffer = buffer
        self._view = memoryview(buffer)
        self._filled = 0
        self._needed = 0  # bytes that the next answer has at least

    def room(self) -> memoryview:
        """Where the next bytes go; never empty."""
        return self._view[self._filled :]

    def take(self, count: int) -> None:
        """So many bytes came into the room: settle what is whole."""
        self._filled += count
        start = 0
        while self.settled < self._expected and not self.over and self._filled - start >= self._needed:
            used = self._answer(start)
            if not used:
                break
            start += used
        if self.settled == self._expected and start < self._filled:
            self.over = True  # bytes that nobody asked for
        if start:
            rest = self._filled - start
            self._view[:rest] = self._view[start : self._filled]
            self._filled = rest

    def _answer(self, start: int) -> int:
        """Settle the answer that begins at ``start``; how long it is, 0 while it is not whole."""
        self._needed = 0
        end = self._buffer.find(b"\r\n\r\n", start, min(self._filled, start + MAX_HEAD))
        if end < 0:
            if self._filled - start >= MAX_HEAD or b"\n\n" in self._view[start : self._filled].tobytes():
                self._unreadable()
            return 0
        framing = _framing(bytes(self._view[start:end]))
        if framing is None:
            self._unreadable()
            return 0
        plain, length, keep = framing
        if plain and length > self._limit:
            self.answers.large(self.settled)
            self._unreadable()
            return 0
        if not plain and length > MAX_SKIPPED:
            self._unreadable()
            return 0
        body = end + 4
        if self._filled - body < length:
            self._needed = body - start + length
            return 0
        if plain:
            self.answers.content(self.settled, self._view[body : body + length])
        self.settled += 1
        self.over = not keep
        return body + length - start

    def _unreadable(self) -> None:
        """The answer is not read to its end, so nothing behind it can be."""
        self.settled += 1
        self.over = True


def _framing(head: bytes) -> tuple[bool, int, bool] | None:
    """What an answer's head says: whether the answer is plain, its body's length, and whether the connection
    goes on after it. None: how long the answer is cannot be told here."""
    status = head[9:12]
    if not head.startswith(b"HTTP/1.1 ") or not status.isdigit() or head[12:13] not in (b" ", b"\r", b""):
        return None
    if status[0] == 0x31 or status in (b"204", b"304") or b"\r\n " in head or b"\r\n\t" in head:
        return None
    if head.count(b"\n") != head.count(b"\r\n"):
        return None  # an answer that ends elsewhere for others
    length = -1
    plain, keep = status == b"200", True
    for name, value in _FIELDS.findall(head):
        kind = name.lower()
        if kind == b"content-length":
            digits = value.strip(b" \t")
            if length >= 0 or not digits.isdigit() or len(digits) > 18:
                return None
            length = int(digits)
        elif kind == b"connection":
            keep = keep and b"close" not in value.lower()
        elif kind == b"transfer-encoding":
            return None
        elif value.strip(b" \t").lower() not in (b"", b"identity"):
            plain = False
    return None if length < 0 else (plain, length, keep)
