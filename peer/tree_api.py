"""``POST /v1/trees``: a folder's stream given to a program of this machine while it comes.

The caller gives one end of a socket along, and makes files of what is written to it: the daemon never opens a
path that a caller names. Writing goes on in worker threads, so that a read of the origin and the making of
files do not wait for each other.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable

import msgspec
import trio

from peer.downloads import download, fetch_order
from peer.events import NDJSON, event_lines
from peer.orders import DownloadDone, DownloadOrder, DownloadProgress
from shared.errors import InvalidRequest, Unavailable
from shared.http.messages import Request, Response
from shared.http.router import Router
from shared.nursery import open_nursery
from shared.swarm.host import Host

SEND_BUFFER = 1024 * 1024
SEND_PATIENCE = 30
"""Seconds for which a caller may take nothing."""


class TreeApi:
    """The route; everything is carried out by the host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def add_routes(self, router: Router) -> None:
        """Mount it."""
        router.add("POST", "/v1/trees", self.tree)

    async def tree(self, request: Request) -> Response:
        """Begin; it is cancelled when the caller hangs up."""
        descriptors = request.take_fds()
        try:
            try:
                order = msgspec.json.decode(await request.body(), type=DownloadOrder)
            except msgspec.MsgspecError as error:
                raise InvalidRequest(f"the request cannot be read: {error}") from None
            if not order.tree:
                raise InvalidRequest("the order does not tell what is wanted of the folder")
            fetch_order(order, None)  # whatever is wrong with the order is said before the stream begins
            if len(descriptors) != 1:
                raise InvalidRequest("one end of a socket must come along")
            sock = _writable_socket(descriptors[0])
        except BaseException:
            for descriptor in descriptors:
                os.close(descriptor)
            raise

        async def work(progress: Callable[[DownloadProgress], None]) -> DownloadDone:
            return await self._bring(order, sock, progress)

        return Response(200, event_lines(self._host.nursery, work), (), NDJSON, sock.close)

    async def _bring(
        self, order: DownloadOrder, sock: socket.socket, progress: Callable[[DownloadProgress], None]
    ) -> DownloadDone:
        async with open_nursery() as nursery:
            await nursery.start(_end_with_scope, sock)
            done = await download(self._host, order, None, progress, _Writer(sock))
            nursery.cancel_scope.cancel()
        return done


class _Writer:
    """Writes the content as it comes."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def piece(self, data: memoryview) -> None:
        await trio.to_thread.run_sync(self._write, data)

    async def again(self) -> None:
        await trio.to_thread.run_sync(self._write, memoryview(b""))

    def _write(self, data: memoryview) -> None:
        head, total = len(data).to_bytes(4, "big"), 4 + len(data)
        try:
            sent = self._sock.sendmsg([head, data])
            while sent < total:
                sent += self._sock.send(head[sent:] if sent < 4 else data[sent - 4 :])
        except OSError as error:
            if error.errno == errno.EAGAIN:
                raise Unavailable(f"nothing of the folder was taken for {SEND_PATIENCE} s") from None
            raise Unavailable("who asked for the folder is gone") from None


async def _end_with_scope(
    sock: socket.socket, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """When cancelled, end the socket, which ends a write that waits for the other side."""
    try:
        task_status.started()
        await trio.sleep_forever()
    finally:
        with contextlib.suppress(OSError):  # the other side may have ended it
            sock.shutdown(socket.SHUT_RDWR)


def _writable_socket(descriptor: int) -> socket.socket:
    """Raises InvalidRequest when it is something else."""
    sock: socket.socket | None = None
    try:
        sock = socket.socket(fileno=os.dup(descriptor))
        if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
            raise InvalidRequest("what came along is not a stream socket of this machine")
        sock.getpeername()
        sock.setblocking(True)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_PATIENCE, 0))
    except BaseException as error:
        if sock is not None:
            sock.close()
        if isinstance(error, OSError):
            raise InvalidRequest("what came along is not a connected socket") from None
        raise
    os.close(descriptor)
    return sock
