"""Here a piece is received: one persistent, pipelined HTTP/1.1 connection to one parent.

The body goes from the socket straight into the piece's buffer; nothing is copied on the way but what
came in one read with the head. The HTTP that is spoken is small on purpose (RFC 9112: status line,
fields, Content-Length bodies); whatever else a parent sends is an error of that parent.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable

import trio

from shared.errors import ParentBusy, ParentGone, ParentStalled, PieceCorrupt, PieceMissing, TransferError
from shared.protocol import KEY_HEADER, VERSION_HEADER

MAX_HEAD = 16 * 1024
MAX_WORDS = 64 * 1024
"""Longest body of an answer that is not a piece; it is read to keep the connection."""
MAX_DIGITS = 18
GATHER = 256 * 1024
"""Bytes of a piece that are left to gather in the kernel before they are taken: a network delivers them in small
portions, and each time that the process wakes up costs more than taking them."""
CONNECT_TIMEOUT = 3.0

Connect = Callable[[str], Awaitable[trio.abc.Stream]]


async def connect_tcp(address: str) -> trio.SocketStream:
    """A connection to ``host:port``. Raises ParentGone or ParentStalled."""
    host, _, port = address.rpartition(":")
    try:
        with trio.fail_after(CONNECT_TIMEOUT):
            return await trio.open_tcp_stream(host.strip("[]"), int(port))
    except trio.TooSlowError:
        raise ParentStalled(f"{address} did not accept a connection within {CONNECT_TIMEOUT:.0f} s") from None
    except (OSError, ValueError) as error:
        raise ParentGone(f"{address} cannot be connected to: {error}") from None


class PieceConnection:
    """Requests go out at once, answers come in the same order. Not for use by two tasks at a time.

    After any error, and after a cancelled ``receive``, the connection is of no more use: close it.
    """

    def __init__(self, stream: trio.abc.Stream, address: str, key: str = "") -> None:
        """``key`` is that of the task (``TaskSpec.piece_key``)."""
        self._shown = (f"{KEY_HEADER}: {key}",) if key else ()
        self._stream = stream
        self._socket = stream.socket if isinstance(stream, trio.SocketStream) else None
        self._gathering = 1
        self._address = address
        self._head = bytearray(MAX_HEAD)
        self._pending = memoryview(b"")
        self._expected: deque[tuple[str, int, str]] = deque()
        self._current: tuple[int, int] | None = None

    @property
    def outstanding(self) -> int:
        """Requests whose answer has not begun yet."""
        return len(self._expected)

    async def request(self, task: str, number: int, version: str) -> None:
        """Ask for a piece. Raises ParentGone when the connection is broken."""
        lines = (
            f"GET /v1/tasks/{task}/pieces/{number} HTTP/1.1",
            f"Host: {self._address}",
            f"{VERSION_HEADER}: {version}",
            *self._shown,
        )
        self._expected.append((task, number, version))
        await self._send("\r\n".join((*lines, "", "")).encode())

    async def head(self) -> int:
        """Wait for the next answer's head; the length in bytes of the piece that follows.

        Raises PieceMissing or ParentBusy (the connection is still good), or ParentGone.
        """
        _, number, version = self._expected.popleft()
        status, fields = parse_head(await self._read_head())
        length = fields.get("content-length", "")
        valid = length.isascii() and length.isdigit() and len(length) <= MAX_DIGITS
        if not valid or "transfer-encoding" in fields:
            raise ParentGone(f"{self._address} answered a piece request without a valid length")
        if status == 200:
            if fields.get(VERSION_HEADER.lower(), version) != version:
                raise ParentGone(f"{self._address} sent another version than was asked for")
            self._current = (number, int(length))
            return int(length)
        await self._discard(int(length))
        raise _refusal(status, fields, number, self._address)

    async def body(self, into: memoryview) -> None:
        """Receive the piece whose head was read. ``into`` is as long as the piece.

        Raises PieceCorrupt when the parent announced another length, ParentGone when it hangs up.
        """
        assert self._current is not None, "head() comes before body()"
        number, length = self._current
        self._current = None
        if length != len(into):
            raise PieceCorrupt(
                f"{self._address} sent {length} bytes for piece {number}, which has {len(into)}"
            )
        got = min(len(self._pending), length)
        into[:got] = self._pending[:got]
        self._pending = self._pending[got:]
        while got < length:
            self._gather(min(length - got, GATHER))
            count = await self._receive_into(into[got:])
            if not count:
                raise ParentGone(
                    f"{self._address} hung up {length - got} bytes before the end of piece {number}"
                )
            got += count
        self._gather(1)

    async def aclose(self) -> None:
        """Close at once, without ceremony."""
        await trio.aclose_forcefully(self._stream)

    async def _send(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ParentGone(f"{self._address} closed the connection: {error.__cause__ or error}") from None

    async def _receive_into(self, view: memoryview) -> int:
        try:
            if self._socket is not None:
                return await _receive_into(self._socket, view)
            data = await self._stream.receive_some(len(view))
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            raise ParentGone(f"{self._address} broke the connection: {error.__cause__ or error}") from None
        view[: len(data)] = data
        return len(data)

    def _gather(self, size: int) -> None:
        """Have the kernel wake us when so many bytes are there, or the parent has hung up (socket(7))."""
        if self._socket is None or size == self._gathering:
            return
        self._gathering = size
        with contextlib.suppress(OSError):  # a kernel that cannot: it wakes us more often
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)

    async def _read_head(self) -> bytes:
        view = memoryview(self._head)
        filled = len(self._pending)
        if filled:
            view[:filled] = bytes(self._pending)
        while (end := self._head.find(b"\r\n\r\n", 0, filled)) < 0:
            if filled >= MAX_HEAD:
                raise ParentGone(f"{self._address} sent a response head of more than {MAX_HEAD} bytes")
            count = await self._receive_into(view[filled:])
            if not count:
                raise ParentGone(f"{self._address} hung up before answering")
            filled += count
        self._pending = view[end + 4 : filled]
        return bytes(view[:end])

    async def _discard(self, length: int) -> None:
        if length > MAX_WORDS:
            raise ParentGone(f"{self._address} refused a piece with {length} bytes of words")
        got = min(len(self._pending), length)
        self._pending = self._pending[got:]
        scrap = memoryview(bytearray(4096))
        while got < length:
            count = await self._receive_into(scrap[: length - got])
            if not count:
                raise ParentGone(f"{self._address} hung up in mid-answer")
            got += count

    def __repr__(self) -> str:
        return f"<PieceConnection to {self._address}, {len(self._expected)} outstanding>"


async def _receive_into(sock: trio.socket.SocketType, view: memoryview) -> int:
    """As ``sock.recv_into``, which would also take a turn of the loop for bytes that had to be waited for."""
    try:
        count = os.readv(sock.fileno(), [view])
    except BlockingIOError:
        pass
    else:
        await trio.lowlevel.cancel_shielded_checkpoint()
        return count
    while True:
        await trio.lowlevel.wait_readable(sock)
        with contextlib.suppress(BlockingIOError):
            return os.readv(sock.fileno(), [view])


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and fields (lower-case names) of an HTTP/1.1 response head. Raises ParentGone."""
    lines = head.split(b"\r\n")
    status = lines[0].split(b" ", 2)
    if (
        len(status) < 2
        or not status[0].startswith(b"HTTP/1.")
        or not (status[1].isdigit() and len(status[1]) == 3)
    ):
        raise ParentGone("what answered does not speak HTTP/1.1")
    fields: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if not colon or not name or name != name.strip():
            raise ParentGone("what answered sent a malformed header line")
        fields[name.decode("latin-1").lower()] = value.strip().decode("latin-1")
    return int(status[1]), fields


def _refusal(status: int, fields: dict[str, str], number: int, address: str) -> TransferError:
    if status in (404, 409, 410):
        return PieceMissing(f"{address} does not hold piece {number} of this version")
    if status in (429, 503):
        try:
            wait = float(fields.get("retry-after", "0.25"))
        except ValueError:
            wait = 0.25
        wait = max(wait, 0.0) if math.isfinite(wait) else 1.0
        return ParentBusy(f"{address} has no upload slot free", retry_after=wait)
    return ParentGone(f"{address} answered {status} to a piece request")
