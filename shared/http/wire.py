"""The bytes below a server connection: one seam over sockets, TLS and in-memory streams.

``SocketWire`` tries system calls first and waits only when the kernel says so: no copies of memoryviews,
``sendfile`` for files, file descriptors over unix sockets. ``StreamWire`` does the same over any trio
stream. Both map every failure of the connection to :class:`ClientGone`, and while they wait for a client
to take bytes they hold ``scope``'s deadline at ``write_timeout`` seconds from the last progress.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
import struct
from abc import ABC, abstractmethod

import trio

from shared.http.errors import ClientGone
from shared.http.listeners import format_address

RECEIVE_BYTES = 64 * 1024
SEND_SLICE = 256 * 1024
"""How much a stream without sockets is given at once; each slice counts as progress."""
FILE_WINDOW = 1024 * 1024
"""How much of a file is made sure to be in memory before it is sent."""
MAX_FDS = 16
"""File descriptors taken from one message; the kernel closes any more."""

_GONE = "the client hung up"
_PLAIN_FLAGS = int(socket.MSG_NOSIGNAL)
_MORE_FLAGS = int(socket.MSG_NOSIGNAL | socket.MSG_MORE)


class Wire(ABC):
    """One connection's bytes. ``peer`` is "ip:port" or "unix"; ``stream`` the trio stream below."""

    def __init__(self, stream: trio.abc.Stream, peer: str, tls: bool) -> None:
        self.stream = stream
        self.peer = peer
        self.tls = tls
        self.scope = trio.CancelScope()
        self.write_timeout = math.inf

    @abstractmethod
    async def prepare(self) -> None:
        """Do what must be done before the first byte (a TLS handshake). Raises ClientGone."""

    @abstractmethod
    async def receive(self) -> bytes:
        """The next bytes, b"" at the end. Always a checkpoint. Raises ClientGone."""

    @abstractmethod
    async def send(self, data: bytes | bytearray | memoryview, *, more: bool = False) -> None:
        """Send all of ``data``; ``more`` says that other bytes follow at once. Raises ClientGone."""

    def send_now(self, data: bytes) -> int:
        """How many of these bytes could be sent without waiting: a connection that is broken takes none."""
        return 0

    @abstractmethod
    async def send_file(self, fd: int, offset: int, length: int) -> None:
        """Send ``length`` bytes of the open file. Raises ClientGone, EOFError when the file is shorter."""

    def take_fds(self) -> list[int]:
        """The file descriptors received since the last call; the caller owns them."""
        return []

    @abstractmethod
    async def close(self, *, linger: float = 0.0, abort: bool = False) -> None:
        """End the connection.

        ``linger``: first tell the end of our bytes and discard input for up to so many seconds, so that
        unread input does not destroy the last answer on its way (RFC 9112 §9.6). ``abort``: in such a way
        that the client cannot take what it has for complete.
        """

    def _hurry(self) -> None:
        self.scope.deadline = trio.current_time() + self.write_timeout

    def _relax(self) -> None:
        self.scope.deadline = math.inf


class SocketWire(Wire):
    """A connected TCP or unix socket."""

    def __init__(self, stream: trio.SocketStream) -> None:
        family = stream.socket.family
        try:
            name = stream.socket.getpeername()
        except OSError as error:
            raise ClientGone(_GONE) from error
        self._unix = family == socket.AF_UNIX
        super().__init__(stream, "unix" if self._unix else format_address(family, name), False)
        # A second Python object on the same descriptor: trio's own methods cost a checkpoint each.
        self._socket = socket.socket(fileno=stream.socket.fileno())
        self._fd = self._socket.fileno()
        self._fds: list[int] = []

    async def prepare(self) -> None:
        pass

    async def receive(self) -> bytes:
        while True:
            try:
                await trio.lowlevel.wait_readable(self._fd)
                return self._receive_with_fds() if self._unix else self._socket.recv(RECEIVE_BYTES)
            except (BlockingIOError, InterruptedError):
                continue
            except (OSError, trio.ClosedResourceError) as error:
                raise ClientGone(_GONE) from error

    async def send(self, data: bytes | bytearray | memoryview, *, more: bool = False) -> None:
        flags = _MORE_FLAGS if more else _PLAIN_FLAGS
        try:
            sent = self._socket.send(data, flags)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            raise ClientGone(_GONE) from error
        if sent == len(data):
            return
        with memoryview(data) as whole:
            while sent < len(whole):
                await self._writable()
                try:
                    with whole[sent:] as rest:
                        sent += self._socket.send(rest, flags)
                except (BlockingIOError, InterruptedError):
                    continue
                except OSError as error:
                    raise ClientGone(_GONE) from error
        self._relax()

    def send_now(self, data: bytes) -> int:
        try:
            return self._socket.send(data, _PLAIN_FLAGS)
        except OSError:
            return 0

    async def send_file(self, fd: int, offset: int, length: int) -> None:
        end = offset + length
        while offset < end:
            window = min(end, offset + FILE_WINDOW)
            if not _in_memory(fd, offset, window - offset):
                await trio.to_thread.run_sync(_bring_in, fd, offset, window - offset)
            while offset < window:
                try:
                    sent = os.sendfile(self._fd, fd, offset, window - offset)
                except (BlockingIOError, InterruptedError):
                    await self._writable()
                    continue
                except OSError as error:
                    raise ClientGone(_GONE) from error
                if sent == 0:
                    raise EOFError("the file became shorter while it was sent")
                offset += sent
            await trio.lowlevel.checkpoint()
        self._relax()

    def take_fds(self) -> list[int]:
        fds, self._fds = self._fds, []
        return fds

    async def close(self, *, linger: float = 0.0, abort: bool = False) -> None:
        try:
            if abort and not self._unix:
                # Zero linger time: the close resets the connection.
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif linger > 0:
                await self._discard(linger)
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.EINVAL):
                raise
        finally:
            self._socket.detach()
            for fd in self.take_fds():
                os.close(fd)
            await trio.aclose_forcefully(self.stream)

    async def _discard(self, seconds: float) -> None:
        self._socket.shutdown(socket.SHUT_WR)
        with trio.move_on_after(seconds):
            try:
                while await self.receive():
                    pass
            except ClientGone:
                return

    async def _writable(self) -> None:
        self._hurry()
        try:
            await trio.lowlevel.wait_writable(self._fd)
        except trio.ClosedResourceError as error:
            raise ClientGone(_GONE) from error

    def _receive_with_fds(self) -> bytes:
        data, ancillary, _, _ = self._socket.recvmsg(
            RECEIVE_BYTES, socket.CMSG_SPACE(MAX_FDS * 4), socket.MSG_CMSG_CLOEXEC
        )
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                count = len(payload) // 4
                self._fds += struct.unpack(f"{count}i", payload[: count * 4])
        while len(self._fds) > MAX_FDS:
            os.close(self._fds.pop())
        return data


class StreamWire(Wire):
    """Any trio stream: TLS, in-memory, a proxy's."""

    def __init__(self, stream: trio.abc.Stream, peer: str = "", tls: bool = False) -> None:
        super().__init__(stream, peer or _peer_of(stream), tls)

    async def prepare(self) -> None:
        if isinstance(self.stream, trio.SSLStream):
            try:
                await self.stream.do_handshake()
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise ClientGone("the client did not complete the TLS handshake") from error

    async def receive(self) -> bytes:
        try:
            return bytes(await self.stream.receive_some(RECEIVE_BYTES))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ClientGone(_GONE) from error

    async def send(self, data: bytes | bytearray | memoryview, *, more: bool = False) -> None:
        try:
            with memoryview(data) as whole:
                for start in range(0, len(whole), SEND_SLICE):
                    self._hurry()
                    with whole[start : start + SEND_SLICE] as part:
                        await self.stream.send_all(part)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise ClientGone(_GONE) from error
        self._relax()

    async def send_file(self, fd: int, offset: int, length: int) -> None:
        end = offset + length
        while offset < end:
            data = await trio.to_thread.run_sync(os.pread, fd, min(FILE_WINDOW, end - offset), offset)
            if not data:
                raise EOFError("the file became shorter while it was sent")
            await self.send(data)
            offset += len(data)

    async def close(self, *, linger: float = 0.0, abort: bool = False) -> None:
        if abort:
            await trio.aclose_forcefully(self.stream)
            return
        gone = contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError)
        try:
            if linger > 0 and isinstance(self.stream, trio.abc.HalfCloseableStream):
                with trio.move_on_after(linger), gone:
                    await self.stream.send_eof()
                    while await self.stream.receive_some(RECEIVE_BYTES):
                        pass
        finally:
            with trio.move_on_after(1.0), gone:  # TLS says goodbye, to those who listen
                await self.stream.aclose()


def _peer_of(stream: trio.abc.Stream) -> str:
    """The peer's address of a TLS stream, looked up on the socket below it."""
    below = getattr(stream, "transport_stream", None)
    if isinstance(below, trio.SocketStream):
        try:
            return format_address(below.socket.family, below.socket.getpeername())
        except OSError:
            return "unknown"
    return "memory"


def _in_memory(fd: int, offset: int, length: int) -> bool:
    """Whether reading there would not wait for the disk, judged by the first and the last byte."""
    try:
        for at in (offset, offset + length - 1):
            os.preadv(fd, [bytearray(1)], at, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system that cannot tell (tmpfs) has no disk to wait for
    return True


def _bring_in(fd: int, offset: int, length: int) -> None:
    """Read the bytes once, so that they are in the page cache. Blocks; for a worker thread."""
    end = offset + length
    while offset < end:
        got = len(os.pread(fd, min(SEND_SLICE, end - offset), offset))
        if got == 0:
            return
        offset += got
