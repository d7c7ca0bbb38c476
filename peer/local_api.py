"""The local API on the daemon's unix socket: downloads, what is held, plugins. For programs on this machine.

=========================  ========================================================
``POST /v1/downloads``     DownloadOrder (and a descriptor) -> stream of DownloadEvent
``POST /v1/trees``         DownloadOrder with a tree, and a socket -> stream of DownloadEvent (``tree_api``)
``GET /v1/tasks``          list of TaskView
``POST /v1/tasks/find``    TaskQuery -> TaskView
``POST /v1/tasks/remove``  TaskQuery -> list of TaskView: what was removed from this machine
``GET /v1/tasks/{task}``   TaskView
``DELETE /v1/tasks/{task}``  the content is removed from this machine
``GET /v1/plugins``        list of plugin records
``GET /v1/lan``            LanView: who else is there; ``?probe=1``: everybody is asked anew for it
=========================  ========================================================
"""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from peer.downloads import download, fetch_order, find, remove, view, view_of
from peer.events import NDJSON, event_lines
from peer.lan.views import HostView, LanView
from peer.orders import DownloadDone, DownloadOrder, DownloadProgress, TaskQuery
from peer.tree_api import TreeApi
from shared.errors import InvalidRequest
from shared.http.messages import Request, Response
from shared.http.router import Router
from shared.plugins import PluginRegistry
from shared.swarm.host import Host
from shared.version import version

T = TypeVar("T")

Look = Callable[[bool], Awaitable[LanView]]
"""Who else is there; True: everybody is asked anew for it."""


class LocalApi:
    """The routes; everything is carried out by the host, which has the plugins that ``plugins`` notes, and sees
    others with ``look``."""

    def __init__(self, host: Host, plugins: PluginRegistry, look: Look) -> None:
        self._host = host
        self._plugins = plugins
        self._look = look

    def add_routes(self, router: Router) -> None:
        """Mount the local API."""
        router.add("POST", "/v1/downloads", self.download)
        TreeApi(self._host).add_routes(router)
        router.add("GET", "/v1/tasks", self.tasks)
        router.add("POST", "/v1/tasks/find", self.find)
        router.add("POST", "/v1/tasks/remove", self.remove_all)
        router.add("GET", "/v1/tasks/{task}", self.task)
        router.add("DELETE", "/v1/tasks/{task}", self.remove)
        router.add("GET", "/v1/plugins", self.plugins)
        router.add("GET", "/v1/lan", self.lan)

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

        def work(progress: Callable[[DownloadProgress], None]) -> Awaitable[DownloadDone]:
            return download(self._host, order, output, progress)

        lines = event_lines(self._host.nursery, work)
        return Response(200, lines, (), NDJSON, lambda: _close(descriptors))

    async def tasks(self, _request: Request) -> Response:
        """What this machine holds, most recently used first."""
        stored = sorted(self._host.store.tasks(), key=lambda task: task.accessed, reverse=True)
        return Response.json([view(self._host, task) for task in stored])

    async def find(self, request: Request) -> Response:
        """The task of a request: what its source had last."""
        return Response.json(find(self._host, _decode(await request.body(), TaskQuery)))

    async def task(self, request: Request) -> Response:
        """The task of an id."""
        return Response.json(view_of(self._host, request.params["task"]))

    async def remove_all(self, request: Request) -> Response:
        """Remove what this machine holds of a request: all that its source had at any time."""
        return Response.json(await remove(self._host, _decode(await request.body(), TaskQuery)))

    async def remove(self, request: Request) -> Response:
        """Remove a task's content from this machine."""
        await self._host.remove(request.params["task"])
        return Response(204)

    async def plugins(self, _request: Request) -> Response:
        """The plugins of this host, each with its state."""
        return Response.json([record.told() for record in self._plugins.current()])

    async def lan(self, request: Request) -> Response:
        """Who else is there."""
        return Response.json(await self._look(request.query.get("probe") not in (None, "", "0")))


def look_alone(host: Host, cluster: str, scheduler: str) -> Look:
    """The eyes of a host that looks for nobody, whose scheduler has this URL."""

    release = version()

    async def look(_probe: bool) -> LanView:
        store = host.store.statistics()
        own = HostView(
            id=host.identity.id,
            name=socket.gethostname(),
            role=host.identity.role,
            address=host.identity.address,
            version=release,
            location=host.identity.location,
            state="present",
            tasks=store.tasks,
            held=store.used,
        )
        return LanView(here=own, cluster=cluster, mode="configured", schedulers=(scheduler,), discovery=False)

    return look


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise InvalidRequest(f"the request cannot be read: {error}") from None


def _close(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())
