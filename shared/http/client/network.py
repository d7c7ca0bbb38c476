"""The network below the HTTP library: trio streams in its form, and where its exceptions become ours."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import httpcore
import trio

from shared.http.client.dialing import ConnectCheck, dial
from shared.http.client.errors import (
    HttpConnectError,
    HttpConnectionLost,
    HttpProtocolError,
    HttpTimeout,
)
from shared.task.identity import redact_url

GATHER_LENGTH = 1024 * 1024
GATHER_PATIENCE = 0.02
"""Most bytes and seconds for which :meth:`ClientStream.receive_into` gathers what a socket brings."""

GATHER_STEP = 256 * 1024
"""Bytes for which one waits at a time while gathering."""

SEVERAL_PATIENCE = 0.002
"""Seconds for which several answers are waited for at once."""

opened_here: ContextVar[bool] = ContextVar("opened_here", default=False)
"""Whether the request that this task is sending had a connection opened for it."""


class NetworkStream(httpcore.AsyncNetworkStream):
    """A trio stream as the HTTP library wants it."""

    def __init__(self, stream: trio.SocketStream | trio.SSLStream[Any], sock: trio.socket.SocketType) -> None:
        self._stream = stream
        self._socket = sock
        self._expected = 1

    @property
    def plain(self) -> bool:
        """Whether the bytes on the socket are the bytes of HTTP."""
        return isinstance(self._stream, trio.SocketStream)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            with trio.fail_after(seconds(timeout)):
                return bytes(await self._stream.receive_some(max_bytes))
        except trio.TooSlowError as error:
            raise httpcore.ReadTimeout(f"no byte for {timeout:g} s") from error
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.ReadError(cause(error)) from error

    async def receive_into(self, buffer: memoryview, timeout: float | None) -> int:
        """Only where ``plain``: straight from the socket; 0 at the end of the stream.

        Gathers for a moment, so that a fast stream costs a few wake-ups per mebibyte and not dozens; after the
        first byte the kernel counts (SO_RCVLOWAT).
        """
        buffer = buffer[:GATHER_LENGTH]
        filled = 0
        try:
            with trio.move_on_after(seconds(timeout)) as scope:
                await trio.lowlevel.checkpoint()
                while filled < len(buffer):
                    try:
                        count = os.readv(self._socket.fileno(), [buffer[filled:]])
                    except BlockingIOError:
                        if filled:
                            scope.deadline = trio.current_time() + GATHER_PATIENCE
                        self._expect(min(len(buffer) - filled, GATHER_STEP) if filled else 1)
                        await trio.lowlevel.wait_readable(self._socket)
                        continue
                    if not count:
                        return filled
                    filled += count
        except (OSError, trio.ClosedResourceError) as error:
            raise httpcore.ReadError(cause(error)) from error
        if not filled and len(buffer):
            raise httpcore.ReadTimeout(f"no byte for {timeout:g} s")
        return filled

    async def receive_several(self, buffer: memoryview, least: int, timeout: float | None) -> int:
        """Only where ``plain``: at least ``least`` bytes, or what there is after ``SEVERAL_PATIENCE``; at least a
        byte, 0 at the end of the stream.

        The kernel counts them (SO_RCVLOWAT), so that many small answers cost one look at the socket.
        """
        try:
            with trio.fail_after(seconds(timeout)):
                if least > 1:
                    self._expect(least)
                    with trio.move_on_after(SEVERAL_PATIENCE):
                        await trio.lowlevel.wait_readable(self._socket)
                self._expect(1)
                return await self._socket.recv_into(buffer)
        except trio.TooSlowError as error:
            raise httpcore.ReadTimeout(f"no byte for {timeout:g} s") from error
        except (OSError, trio.ClosedResourceError) as error:
            raise httpcore.ReadError(cause(error)) from error

    async def wait_for(self, least: int) -> None:
        """Only where ``plain``: until that many bytes are there, or the stream's end. A kernel that cannot count tells
        of any."""
        with contextlib.suppress(OSError):
            self._expect(least)
        try:
            await trio.lowlevel.wait_readable(self._socket)
        except (OSError, trio.ClosedResourceError) as error:
            raise httpcore.ReadError(cause(error)) from error
        finally:
            with contextlib.suppress(OSError):
                self._expect(1)

    def take_now(self, most: int) -> bytes | None:
        """Only where ``plain``: up to so many bytes that are there; None where there are none, b"" at the end."""
        try:
            return os.read(self._socket.fileno(), most)
        except BlockingIOError:
            return None
        except (OSError, ValueError) as error:
            raise httpcore.ReadError(cause(error)) from error

    def _expect(self, least: int) -> None:
        if least != self._expected:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)
            self._expected = least

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:
            return
        try:
            with trio.fail_after(seconds(timeout)):
                await self._stream.send_all(buffer)
        except trio.TooSlowError as error:
            raise httpcore.WriteTimeout(f"nothing taken for {timeout:g} s") from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise httpcore.WriteError(cause(error)) from error

    async def aclose(self) -> None:
        await trio.aclose_forcefully(self._stream)

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> NetworkStream:
        stream: trio.SSLStream[Any] = trio.SSLStream(
            self._stream, ssl_context, server_hostname=server_hostname, https_compatible=True
        )
        try:
            with trio.fail_after(seconds(timeout)):
                await stream.do_handshake()
        except BaseException as error:
            await trio.aclose_forcefully(stream)
            if isinstance(error, trio.TooSlowError):
                raise httpcore.ConnectTimeout("the TLS handshake took too long") from error
            if isinstance(error, trio.BrokenResourceError):
                raise httpcore.ConnectError(f"TLS failed: {cause(error)}") from error
            raise
        return NetworkStream(stream, self._socket)

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            if self._socket.fileno() < 0:
                return True
            poll = select.poll()
            poll.register(self._socket.fileno(), select.POLLIN)
            return bool(poll.poll(0))
        if info == "socket":
            return self._socket
        return None


class NetworkBackend(httpcore.AsyncNetworkBackend):
    """Opens connections, each address checked after the name was resolved and before it is used."""

    def __init__(self, check: ConnectCheck | None) -> None:
        self._check = check

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> NetworkStream:
        opened_here.set(True)
        try:
            with trio.fail_after(seconds(timeout)):
                sock = await dial(host, port, self._check)
        except trio.TooSlowError as error:
            raise httpcore.ConnectTimeout(f"no connection within {timeout:g} s") from error
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(cause(error)) from error
        return NetworkStream(trio.SocketStream(sock), sock)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> NetworkStream:
        opened_here.set(True)
        try:
            with trio.fail_after(seconds(timeout)):
                stream = await trio.open_unix_socket(path)
        except trio.TooSlowError as error:
            raise httpcore.ConnectTimeout(f"no connection within {timeout:g} s") from error
        except (OSError, ValueError) as error:
            raise httpcore.ConnectError(f"{path}: {cause(error)}") from error
        return NetworkStream(stream, stream.socket)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)


@contextlib.contextmanager
def mapped(url: str) -> Iterator[None]:
    """Turns the library's exceptions into HttpError; the messages name the URL without its secrets."""
    try:
        yield
    except (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.ProxyError) as error:
        raise HttpConnectError(f"cannot connect for {redact_url(url)}: {cause(error)}") from error
    except httpcore.TimeoutException as error:
        raise HttpTimeout(f"{redact_url(url)} took too long: {cause(error)}") from error
    except httpcore.RemoteProtocolError as error:
        words = cause(error)
        if "peer closed connection" in words or "disconnected" in words:
            raise HttpConnectionLost(f"{redact_url(url)} closed the connection early: {words}") from error
        raise HttpProtocolError(f"{redact_url(url)} did not answer in HTTP/1.1: {words}") from error
    except httpcore.NetworkError as error:
        raise HttpConnectionLost(f"the connection for {redact_url(url)} was lost: {cause(error)}") from error
    except (httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
        raise HttpProtocolError(f"the request to {redact_url(url)} is not valid: {cause(error)}") from error


def seconds(value: float | None) -> float:
    """A limit for trio: None is no limit."""
    return float("inf") if value is None else value


def cause(error: BaseException) -> str:
    """The words of the error nearest to the cause that has any."""
    words = ""
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, OSError) and current.strerror:
            return current.strerror
        words = str(current) or words
        current = current.__cause__
    return words or type(error).__name__
