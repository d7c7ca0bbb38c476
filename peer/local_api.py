"""The local API on the daemon's unix socket: downloads and what is held. For programs on this machine.

=========================  ========================================================
``POST /v1/downloads``     DownloadOrder (and a descriptor) -> stream of DownloadEvent
``GET /v1/tasks``          list of TaskView
``POST /v1/tasks/find``    TaskQuery -> TaskView
``GET /v1/tasks/{task}``   TaskView
``DELETE /v1/tasks/{task}``  the content is removed from this machine
=========================  ========================================================
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncGenerator
from typing import TypeVar

import msgspec
import trio

from peer.downloads import download, failed, fetch_order, task_id_of, view, view_of
from peer.orders import DownloadEvent, DownloadOrder, DownloadProgress, TaskQuery
from shared.errors import DragonetError, InvalidRequest
from shared.http.messages import Request, Response
from shared.http.router import Router
from shared.swarm.host import Host

NDJSON = "application/x-ndjson"
T = TypeVar("T")


class LocalApi:
    """The routes; everything is carried out by the host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def add_routes(self, router: Router) -> None:
        """Mount the local API."""
        router.add("POST", "/v1/downloads", self.download)
        router.add("GET", "/v1/tasks", self.tasks)
        router.add("POST", "/v1/tasks/find", self.find)
        router.add("GET", "/v1/tasks/{task}", self.task)
        router.add("DELETE", "/v1/tasks/{task}", self.remove)

    async def download(self, request: Request) -> Response:
        """Begin a download; it is cancelled when the caller hangs up."""
        descriptors = request.take_fds()
        try:
            order = _decode(await request.body(), DownloadOrder)
            if len(descriptors) > 1:
                raise InvalidRequest("a download takes one file descriptor")
            fetch_order(order, None)  # whatever is wrong with the order is said before the stream begins
        except BaseException:
            _close(descriptors)
            raise
        output = descriptors[0] if descriptors else None
        return Response(200, self._events(order, output), (), NDJSON, lambda: _close(descriptors))

    async def _events(self, order: DownloadOrder, output: int | None) -> AsyncGenerator[bytes, None]:
        """The event lines of one download. Leaving the generator early cancels it."""
        send, receive = trio.open_memory_channel[DownloadEvent](4)

        def progress(event: DownloadProgress) -> None:
            with contextlib.suppress(trio.WouldBlock):  # a slow reader misses steps, never the end
                send.send_nowait(event)

        async def run() -> None:
            async with send:
                try:
                    done: DownloadEvent = await download(self._host, order, output, progress)
                except DragonetError as error:
                    done = failed(error)
                await send.send(done)

        scope = trio.CancelScope()
        ended = trio.Event()

        async def scoped() -> None:
            try:
                with scope:
                    await run()
            finally:
                ended.set()

        self._host.nursery.start_soon(scoped)
        try:
            while True:
                try:
                    event = await receive.receive()
                except trio.EndOfChannel:
                    return
                yield msgspec.json.encode(event) + b"\n"
                if not isinstance(event, DownloadProgress):
                    return
        finally:
            scope.cancel()
            with trio.CancelScope(shield=True):
                await ended.wait()

    async def tasks(self, _request: Request) -> Response:
        """What this machine holds, most recently used first."""
        stored = sorted(self._host.store.tasks(), key=lambda task: task.accessed, reverse=True)
        return Response.json([view(self._host, task) for task in stored])

    async def find(self, request: Request) -> Response:
        """The task of a request."""
        return Response.json(view_of(self._host, task_id_of(_decode(await request.body(), TaskQuery))))

    async def task(self, request: Request) -> Response:
        """The task of an id."""
        return Response.json(view_of(self._host, request.params["task"]))

    async def remove(self, request: Request) -> Response:
        """Remove a task's content from this machine."""
        await self._host.remove(request.params["task"])
        return Response(204)


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise InvalidRequest(f"the request cannot be read: {error}") from None


def _close(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())
