"""The local API's client: what ``dragonet get`` and other programs of this machine talk to the daemon with.

Plain HTTP/1.1 over the unix socket with h11, and nothing else imported: a command must start quickly,
and only a raw socket can carry the output file's descriptor along.
"""

from __future__ import annotations

import array
import errno
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import h11
import msgspec
import trio

from peer.orders import (
    DownloadDone,
    DownloadEvent,
    DownloadFailed,
    DownloadOrder,
    DownloadProgress,
    TaskQuery,
    TaskView,
)
from peer.refusals import as_error, refused
from shared.errors import Unavailable
from shared.plugins import PluginRecord

if TYPE_CHECKING:
    from peer.lan.views import LanView

MAX_ANSWER = 64 * 1024 * 1024
ANSWER_TIMEOUT = 30.0
"""Seconds for any answer but a download's, and for a download's first line."""


class NoDaemon(Unavailable):
    """No daemon listens on the socket."""


class LocalClient:
    """Calls the daemon that listens on ``path``; every call has a connection of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def tasks(self) -> list[TaskView]:
        """What this machine holds, most recently used first."""
        return msgspec.json.decode(await self._call("GET", "/v1/tasks"), type=list[TaskView])

    async def find(self, query: TaskQuery) -> TaskView:
        """The task of a request, or of a task id given as its URL. Raises TaskNotFound."""
        body = await self._call("POST", "/v1/tasks/find", msgspec.json.encode(query))
        return msgspec.json.decode(body, type=TaskView)

    async def remove(self, query: TaskQuery) -> list[TaskView]:
        """Remove what this machine holds of a request, or of a task id given as its URL. Raises TaskNotFound."""
        body = await self._call("POST", "/v1/tasks/remove", msgspec.json.encode(query))
        return msgspec.json.decode(body, type=list[TaskView])

    async def plugins(self) -> list[PluginRecord]:
        """The plugins of the daemon, each with its state."""
        return msgspec.json.decode(await self._call("GET", "/v1/plugins"), type=list[PluginRecord])

    async def lan(self, *, probe: bool) -> LanView:
        """Who else is there. ``probe``: everybody is asked anew for it."""
        from peer.lan.views import LanView  # `get` has no use for it

        answer = await self._call("GET", "/v1/lan?probe=1" if probe else "/v1/lan")
        return msgspec.json.decode(answer, type=LanView)

    async def download(
        self, order: DownloadOrder, output: int | None, on_progress: Callable[[DownloadProgress], None]
    ) -> DownloadDone:
        """Download; ``output`` is a descriptor open for writing, which the daemon writes to.

        Cancellation hangs up, which cancels the download in the daemon. Raises what went wrong there.
        """
        async with await self._connect() as stream:
            body = msgspec.json.encode(order)
            async with aclosing(_exchange(stream, "POST", "/v1/downloads", body, output)) as parts:
                pending = b""
                async for part in parts:
                    *lines, pending = (pending + part).split(b"\n")
                    for line in lines:
                        event: DownloadEvent = msgspec.json.decode(line, type=DownloadEvent)
                        if isinstance(event, DownloadDone):
                            return event
                        if isinstance(event, DownloadFailed):
                            raise as_error(event)
                        on_progress(event)
        raise Unavailable(
            "the daemon ended in mid-download: start it again and repeat the command; "
            "what came already is kept and will be used"
        )

    async def _call(self, method: str, target: str, body: bytes = b"") -> bytes:
        answer = bytearray()
        with trio.move_on_after(ANSWER_TIMEOUT) as scope:
            async with (
                await self._connect() as stream,
                aclosing(_exchange(stream, method, target, body, None)) as parts,
            ):
                async for part in parts:
                    answer += part
                    if len(answer) > MAX_ANSWER:
                        raise Unavailable(f"the daemon answered more than {MAX_ANSWER} bytes")
        if scope.cancelled_caught:
            raise Unavailable(f"the daemon at {self.path} did not answer within {ANSWER_TIMEOUT:.0f} s")
        return bytes(answer)

    async def _connect(self) -> trio.SocketStream:
        sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            await sock.connect(str(self.path))
        except OSError as error:
            sock.close()
            if error.errno == errno.EACCES:
                raise NoDaemon(
                    f"the dragonet daemon's socket {self.path} is not for this user: run this as the user of the "
                    "daemon (root, where it is a service), or name another socket with --socket"
                ) from None
            raise NoDaemon(
                f"no dragonet daemon answers on {self.path} ({error.strerror}): start one with `dragonet up` or "
                "`dragonet peer`, or name its socket with --socket"
            ) from None
        return trio.SocketStream(sock)


async def _exchange(
    stream: trio.SocketStream, method: str, target: str, body: bytes, descriptor: int | None
) -> AsyncGenerator[bytes, None]:
    """One request; the answer's body as it comes. Raises the error that the daemon answered with."""
    http = h11.Connection(h11.CLIENT)
    headers = [
        ("Host", "localhost"),
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
    ]
    data = http.send(h11.Request(method=method, target=target, headers=headers)) or b""
    data += (http.send(h11.Data(data=body)) or b"") + (http.send(h11.EndOfMessage()) or b"")
    try:
        await _send(stream, data, descriptor)
        status = 0
        refusal = b""
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(bytes(await stream.receive_some(64 * 1024)))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                if 200 <= status < 300:
                    yield bytes(event.data)
                else:
                    refusal = (refusal + bytes(event.data))[:MAX_REFUSAL]
            elif isinstance(event, h11.EndOfMessage):
                break
            elif isinstance(event, h11.ConnectionClosed):
                raise Unavailable("the daemon hung up")
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise Unavailable(f"the daemon hung up: {error.__cause__ or error}") from None
    except h11.RemoteProtocolError as error:
        raise Unavailable(f"the daemon hung up in mid-answer: {error}") from None
    if not 200 <= status < 300:
        raise refused(status, refusal)


MAX_REFUSAL = 64 * 1024


async def _send(stream: trio.SocketStream, data: bytes, descriptor: int | None) -> None:
    if descriptor is None:
        await stream.send_all(data)
        return
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
    sent = await stream.socket.sendmsg([data], ancillary)
    if sent < len(data):
        await stream.send_all(data[sent:])
