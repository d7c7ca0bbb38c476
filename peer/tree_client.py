"""``POST /v1/trees`` from the caller's side: a folder's stream out of the daemon, by one blocking connection.

No event loop: a command that waits for one stream needs none, and starts in half the time without it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from peer.orders import (
    DownloadAgain,
    DownloadData,
    DownloadDone,
    DownloadFailed,
    DownloadOrder,
    DownloadProgress,
    StreamEvent,
)
from peer.refusals import as_error, refused
from shared.errors import DeadlineExceeded, Unavailable

PATIENCE = 60.0
"""Seconds without a byte after which the daemon counts as stuck: it tells its progress ten times a second."""
MAX_LINE = 64 * 1024
_BUFFER = 1024 * 1024

_decode = msgspec.json.Decoder(StreamEvent).decode


class StreamTaker(Protocol):
    """Gets the stream."""

    def begin(self) -> None:
        """It begins; also when it begins anew."""

    def feed(self, data: memoryview) -> None:
        """Its next bytes, not there any more after the call."""

    @property
    def ended(self) -> bool:
        """Whether it came to its end."""


def connect(path: Path) -> socket.socket | None:
    """A connection to the daemon that listens on ``path``; None where none does."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
    except OSError:
        sock.close()
        return None
    return sock


def receive_tree(
    sock: socket.socket,
    order: DownloadOrder,
    taker: StreamTaker,
    on_progress: Callable[[DownloadProgress], None],
    deadline: float,
) -> DownloadDone:
    """Have the daemon get a folder, and give its stream to ``taker``; ``deadline`` is by the monotonic clock.

    Raises what went wrong in the daemon, Unavailable when it hangs up, DeadlineExceeded.
    """
    return _Exchange(sock, order, taker, on_progress, deadline).run()


class _Exchange:
    def __init__(
        self,
        sock: socket.socket,
        order: DownloadOrder,
        taker: StreamTaker,
        on_progress: Callable[[DownloadProgress], None],
        deadline: float,
    ) -> None:
        self._sock = sock
        self._order = order
        self._taker = taker
        self._on_progress = on_progress
        self._deadline = deadline
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0

    def run(self) -> DownloadDone:
        try:
            body = msgspec.json.encode(self._order)
            # HTTP/1.0: the answer comes without chunks, up to the connection's end
            head = f"POST /v1/trees HTTP/1.0\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
            self._limit()
            self._sock.sendall(head.encode() + body)
            self._check_head(bytes(self._until(b"\r\n\r\n")))
            self._taker.begin()
            while True:
                event = self._event()
                if isinstance(event, DownloadDone):
                    return event
                if isinstance(event, DownloadFailed):
                    raise as_error(event)
                if isinstance(event, DownloadData):
                    self._data(event.length)
                elif isinstance(event, DownloadAgain):
                    self._taker.begin()
                else:
                    self._on_progress(event)
        except TimeoutError:
            if time.monotonic() >= self._deadline:
                raise DeadlineExceeded("the time limit is over") from None
            raise Unavailable(f"the daemon said nothing for {PATIENCE:.0f} s: look at its log") from None
        except OSError as error:
            raise Unavailable(f"the daemon hung up: {error.strerror}") from None

    def _event(self) -> StreamEvent:
        try:
            event: StreamEvent = _decode(self._until(b"\n"))
        except msgspec.MsgspecError as error:
            raise Unavailable(f"what the daemon says is not understood: {error}") from None
        return event

    def _data(self, left: int) -> None:
        while left:
            if self._start == self._end:
                self._receive()
            part = self._view[self._start : min(self._end, self._start + left)]
            self._taker.feed(part)
            self._start += len(part)
            left -= len(part)

    def _until(self, mark: bytes) -> memoryview:
        """What comes before the next ``mark``; valid until more is received."""
        while (found := self._buffer.find(mark, self._start, self._end)) < 0:
            if self._end - self._start >= MAX_LINE:
                raise Unavailable("what the daemon says is not understood: a line of it is too long")
            self._receive()
        line = self._view[self._start : found]
        self._start = found + len(mark)
        return line

    def _receive(self) -> None:
        rest = self._end - self._start
        self._view[:rest] = self._view[self._start : self._end]
        self._start, self._end = 0, rest
        self._limit()
        count = self._sock.recv_into(self._view[self._end :])
        if not count:
            raise Unavailable(
                "the daemon ended in mid-download: start it again and repeat the command; "
                "what came already is kept and will be used"
            )
        self._end += count

    def _check_head(self, head: bytes) -> None:
        status = head[9:12]
        if status == b"200":
            return
        body = bytearray(self._view[self._start : self._end])
        while part := self._sock.recv(64 * 1024):
            body += part
        raise refused(int(status) if status.isdigit() else 500, bytes(body))

    def _limit(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(min(left, PATIENCE))
