"""The HTTP/1.1 server that every role listens with: h11 on trio.

::

    server = HttpServer(router, name="peer")
    await nursery.start(server.serve, await listen_tcp("127.0.0.1:65002"))
    ...
    await server.drain(grace=10)

``serve`` may be called several times for one server (a TCP port, a unix socket, a TLS port).
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from shared.http.connection import Connection, Shared
from shared.http.errors import ClientGone
from shared.http.limits import ServerLimits
from shared.http.listeners import bound_address, listen_tcp, listen_unix
from shared.http.messages import Handler, Request, Response
from shared.http.wire import SocketWire, StreamWire, Wire

__all__ = ["HttpServer", "ServerLimits", "ServerStatistics", "bound_address", "listen_tcp", "listen_unix"]

OnError = Callable[[Request, Exception], Response | None]
"""Makes the answer to a request whose handler raised; None leaves it to the server."""

Admit = Callable[[str], bool]
"""Whether a caller's connection is served, by its IP address (IPv6 without brackets). Must be cheap."""

EXPIRY_INTERVAL = 1.0
"""Seconds at least between two looks for connections that have waited too long."""

_DEFAULT_LIMITS = ServerLimits()
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """A server's state now, and its counts since it was made.

    ``connections`` are open, ``idle`` of them wait for a request; ``active_requests`` are being answered.
    ``accepted`` connections, ``refused`` ones (the server was full), ``unwelcome`` ones (the caller is not
    admitted), ``requests``, ``malformed`` ones.
    ``responses`` are counted by status class, 1xx to 5xx.
    """

    connections: int
    idle: int
    active_requests: int
    accepted: int
    refused: int
    unwelcome: int
    requests: int
    malformed: int
    responses: tuple[int, int, int, int, int]


class HttpServer:
    """Serves one handler (mostly a Router) on any number of listeners."""

    def __init__(
        self,
        handler: Handler,
        *,
        limits: ServerLimits = _DEFAULT_LIMITS,
        name: str = "http",
        on_error: OnError | None = None,
        admit: Admit | None = None,
    ) -> None:
        """``name`` stands in the log. ``on_error`` makes error answers in another form than ours. A caller whom
        ``admit`` does not let in is hung up on before anything is read."""
        self.name = name
        self.limits = limits
        self._admit = admit
        self._shared = Shared(handler, limits, name, on_error)
        self._connections: dict[Connection, None] = {}
        self._accepting: set[trio.CancelScope] = set()
        self._emptied = trio.Event()
        self._watches = 0

    async def serve(
        self,
        listeners: Sequence[trio.SocketListener],
        *,
        ssl_context: ssl.SSLContext | None = None,
        task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled, or until :meth:`drain` is through. The listeners are closed at the end.

        With ``ssl_context`` the listeners speak TLS. Cancelling breaks what is being sent.
        """
        below: list[Any] = list(listeners)
        if ssl_context is not None:
            below = [trio.SSLListener(each, ssl_context, https_compatible=True) for each in listeners]
        try:
            async with self._expiring(), trio.open_nursery() as connections:
                with trio.CancelScope() as accepting:
                    self._accepting.add(accepting)
                    if self._shared.draining:
                        accepting.cancel()
                    task_status.started(list(listeners))
                    await trio.serve_listeners(self.serve_stream, below, handler_nursery=connections)
                self._accepting.discard(accepting)
        finally:
            for listener in listeners:
                listener.socket.close()

    async def serve_stream(self, stream: trio.abc.Stream, *, peer: str = "") -> None:
        """Serve one connection over any stream, and close it. Raises nothing but cancellation."""
        if not self._watches:
            async with self._expiring():
                await self.serve_stream(stream, peer=peer)
            return
        shared = self._shared
        if self._admit is not None and not _admitted(stream, self._admit):
            shared.unwelcome += 1
            await trio.aclose_forcefully(stream)
            return
        shared.accepted += 1
        if shared.draining or not self._make_room():
            shared.refused += 1
            await _turn_away(stream)
            return
        try:
            wire: Wire = (
                SocketWire(stream)
                if isinstance(stream, trio.SocketStream)
                else StreamWire(stream, peer, tls=isinstance(stream, trio.SSLStream))
            )
        except ClientGone:
            await trio.aclose_forcefully(stream)
            return
        connection = Connection(wire, shared)
        self._connections[connection] = None
        try:
            await connection.run()
        finally:
            del self._connections[connection]
            if not self._connections:
                self._emptied.set()
                self._emptied = trio.Event()

    async def drain(self, grace: float) -> None:
        """Stop serving: accept nothing more, close idle connections, let running responses finish.

        Iterator bodies marked ``endless`` are ended at once. After ``grace`` seconds what still runs is
        cancelled. Returns when the last connection is closed; ``serve`` then returns too.
        """
        self._shared.draining = True
        for accepting in self._accepting:
            accepting.cancel()
        for connection in list(self._connections):
            connection.drain()
        with trio.move_on_after(grace):
            await self._empty()
        for connection in list(self._connections):
            connection.shut()
        await self._empty()

    def statistics(self) -> ServerStatistics:
        """A snapshot."""
        shared = self._shared
        one, two, three, four, five = shared.responses
        return ServerStatistics(
            connections=len(self._connections),
            idle=sum(connection.idle for connection in self._connections),
            active_requests=shared.active,
            accepted=shared.accepted,
            refused=shared.refused,
            unwelcome=shared.unwelcome,
            requests=shared.requests,
            malformed=shared.malformed,
            responses=(one, two, three, four, five),
        )

    @asynccontextmanager
    async def _expiring(self) -> AsyncIterator[None]:
        """Meanwhile, end the connections that have waited too long."""
        self._watches += 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._expire)
                yield
                nursery.cancel_scope.cancel()
        finally:
            self._watches -= 1

    async def _expire(self) -> None:
        shortest = min(self.limits.header_timeout, self.limits.idle_timeout)
        while True:
            now = trio.current_time()
            first = now + shortest  # no wait that begins from now on is over earlier
            for connection in self._connections:
                if connection.expires <= now:
                    connection.expire()
                elif connection.expires < first:
                    first = connection.expires
            await trio.sleep(max(EXPIRY_INTERVAL, first - now))

    async def _empty(self) -> None:
        while self._connections:
            await self._emptied.wait()

    def _make_room(self) -> bool:
        """Whether another connection may be served; closes the oldest idle one where that helps."""
        if len(self._connections) < self.limits.max_connections:
            return True
        for connection in self._connections:
            if connection.idle and not connection.closing:
                connection.shut()
                return True
        return False

    def __repr__(self) -> str:
        return f"<HttpServer {self.name}: {len(self._connections)} connections>"


def _admitted(stream: trio.abc.Stream, admit: Admit) -> bool:
    below = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    if not isinstance(below, trio.SocketStream) or below.socket.family not in (
        socket.AF_INET,
        socket.AF_INET6,
    ):
        return True  # of this machine
    try:
        return admit(below.socket.getpeername()[0])
    except OSError:
        return False  # it has gone by itself


async def _turn_away(stream: trio.abc.Stream) -> None:
    with trio.move_on_after(1.0):
        try:
            if isinstance(stream, trio.SocketStream):
                await stream.send_all(_FULL)
                await stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it went by itself
    await trio.aclose_forcefully(stream)
