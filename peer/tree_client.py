"""``POST /v1/trees`` from the caller's side: a folder's stream out of the daemon.

Two blocking sockets, one for what the daemon says and one for the stream, and no event loop: a command that
waits for nothing else needs none, and starts in half the time without it.
"""

from __future__ import annotations

import array
import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from peer.orders import DownloadDone, DownloadEvent, DownloadFailed, DownloadOrder, DownloadProgress
from peer.refusals import as_error, refused
from shared.errors import DeadlineExceeded, Unavailable

PATIENCE = 60.0
"""Seconds without a byte after which the daemon counts as stuck: it tells its progress ten times a second."""
MAX_WORDS = 256 * 1024
"""Longest head, line or refusal."""
_BUFFER = 1024 * 1024

_decode = msgspec.json.Decoder(DownloadEvent).decode


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
    stream, far = socket.socketpair()
    with stream:
        try:
            with far:
                _ask(sock, order, far)
            return _receive(sock, stream, _Words(), _Frames(taker), on_progress, deadline)
        except OSError as error:
            raise Unavailable(f"the daemon hung up: {error.strerror}") from None


def _ask(sock: socket.socket, order: DownloadOrder, far: socket.socket) -> None:
    body = msgspec.json.encode(order)
    # HTTP/1.0: the answer comes without chunks, up to the connection's end
    head = f"POST /v1/trees HTTP/1.0\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    data = head.encode() + body
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [far.fileno()]))]
    sent = sock.sendmsg([data], rights)
    if sent < len(data):
        with contextlib.suppress(BrokenPipeError):  # it says why before it hangs up
            sock.sendall(data[sent:])


def _receive(
    sock: socket.socket,
    stream: socket.socket,
    words: _Words,
    frames: _Frames,
    on_progress: Callable[[DownloadProgress], None],
    deadline: float,
) -> DownloadDone:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    poll.register(stream, select.POLLIN)
    buffer = memoryview(bytearray(_BUFFER))
    done: DownloadDone | None = None
    streaming = True
    while done is None or streaming:
        left = deadline - time.monotonic()
        ready = dict(poll.poll(max(0.0, min(left, PATIENCE)) * 1000))
        if not ready:
            if time.monotonic() >= deadline:
                raise DeadlineExceeded("the time limit is over")
            raise Unavailable(f"the daemon said nothing for {PATIENCE:.0f} s: look at its log")
        if stream.fileno() in ready:
            count = stream.recv_into(buffer)
            if count:
                frames.feed(buffer[:count])
            else:
                poll.unregister(stream)
                streaming = False
        if sock.fileno() in ready:
            data = sock.recv(64 * 1024)
            for event in words.feed(data):
                if isinstance(event, DownloadDone):
                    done = event
                elif isinstance(event, DownloadFailed):
                    raise as_error(event)
                else:
                    on_progress(event)
            if not data:
                poll.unregister(sock)
                if done is None:
                    raise words.cut()
    return done


class _Words:
    """What the daemon says: a head, and event lines. Pure."""

    def __init__(self) -> None:
        self._pending = b""
        self._status = 0

    def feed(self, data: bytes) -> Iterator[DownloadEvent]:
        """The events completed by ``data``. Raises Unavailable when they are none."""
        self._pending += data
        if not self._status:
            head, end, rest = self._pending.partition(b"\r\n\r\n")
            if end:
                status = head[9:12]
                self._status, self._pending = int(status) if status.isdigit() else 500, rest
        if self._status == 200:
            *lines, self._pending = self._pending.split(b"\n")
            for line in lines:
                try:
                    event: DownloadEvent = _decode(line)
                except msgspec.MsgspecError as error:
                    raise Unavailable(f"what the daemon says is not understood: {error}") from None
                yield event
        if len(self._pending) > MAX_WORDS:
            raise Unavailable("what the daemon says is not understood: it is too long")

    def cut(self) -> Exception:
        """The error when no more comes."""
        if self._status not in (0, 200):
            return refused(self._status, self._pending)
        return Unavailable(
            "the daemon ended in mid-download: start it again and repeat the command; "
            "what came already is kept and will be used"
        )


class _Frames:
    """Takes the lengths out of what comes, and gives the stream on. Pure but for the taker."""

    def __init__(self, taker: StreamTaker) -> None:
        self._taker = taker
        self._head = b""
        self._left = 0
        taker.begin()

    def feed(self, data: memoryview) -> None:
        """The next bytes."""
        while data:
            if self._left:
                self._taker.feed(data[: self._left])
                taken = min(self._left, len(data))
                self._left -= taken
            else:
                taken = min(4 - len(self._head), len(data))
                self._head += data[:taken]
                if len(self._head) == 4:
                    self._left, self._head = int.from_bytes(self._head, "big"), b""
                    if not self._left:
                        self._taker.begin()
            data = data[taken:]
