"""Serving pieces to children: the data protocol's two routes.

A piece goes from the store's memory map to the socket, under one of few upload slots. What is served
is named by its version, so a child never mixes two versions. Of content that not everybody may have nothing is
given, or told, to who does not show its key.
"""

from __future__ import annotations

import hmac
import re
from contextlib import ExitStack

import trio

from shared.errors import InvalidRequest, ParentBusy, PieceMissing, TaskNotFound
from shared.http.messages import Request, Response
from shared.http.router import Router
from shared.protocol import KEY_HEADER, MSGPACK, VERSION_HEADER
from shared.swarm.availability import events
from shared.swarm.limits import TokenBucket, UploadSlots
from shared.swarm.metrics import SwarmMetrics
from shared.swarm.task import HostTask
from shared.swarm.tasks import HostTasks
from shared.task.bitmap import MAX_PIECES

_TASK_ID = re.compile(r"[0-9a-f]{64}")
RECHECK = 60.0
"""Seconds after which a piece is verified again before it is sent: a disk that forgot is found out, and what was
damaged is fetched anew."""


class Uploads:
    """The parent's side of piece exchange."""

    def __init__(
        self, tasks: HostTasks, slots: UploadSlots, bucket: TokenBucket, metrics: SwarmMetrics
    ) -> None:
        self._tasks = tasks
        self._slots = slots
        self._bucket = bucket
        self._metrics = metrics

    def add_routes(self, router: Router) -> None:
        """Mount the data protocol."""
        router.add("GET", "/v1/tasks/{task}/pieces/{number}", self.piece)
        router.add("GET", "/v1/tasks/{task}/availability", self.availability)

    async def piece(self, request: Request) -> Response:
        """The bytes of one piece; 404 when it is not held, 409 in another version, 503 without a slot."""
        number = _piece_number(request.params["number"])
        task = await self._tasks.held(_task_id(request.params["task"]))
        with ExitStack() as taken:
            taken.callback(self._tasks.release, task)
            version = _current_version(task, request)
            content = task.content
            assert content is not None, "a current version has its content open"
            try:
                if number not in content.held:
                    raise PieceMissing(f"piece {number} is not held here")
                layout = content.layout
                size = content.meta.piece_length if layout is None else layout.size(number)
                slot = await self._slots.acquire(size)
                taken.callback(slot.release)
                piece = await content.open_piece(number, trio.current_time() - RECHECK)
            except ParentBusy:
                self._metrics.refused.inc()
                raise
            except PieceMissing as error:  # also when it was damaged or removed while a slot was waited for
                task.pulse.beat()
                return _not_held(error)
            taken.callback(piece.close)
            await self._bucket.take(len(piece.data))
            self._metrics.sent.inc(len(piece.data))
            headers = [(VERSION_HEADER, version)]
            release = taken.pop_all().close
            return Response(200, piece.data, headers, "application/octet-stream", release)

    async def availability(self, request: Request) -> Response:
        """What is held of a task, and then what is added, as a stream of frames."""
        task = await self._tasks.held(_task_id(request.params["task"]))
        try:
            version = _current_version(task, request)
        except BaseException:
            self._tasks.release(task)
            raise
        return Response(
            200,
            events(task, version),
            [(VERSION_HEADER, version)],
            MSGPACK,
            lambda: self._tasks.release(task),
            endless=True,
        )


def _current_version(task: HostTask, request: Request) -> str:
    meta = task.meta
    shown = request.headers.get(KEY_HEADER, "").encode()
    if meta is None or (task.key and not hmac.compare_digest(shown, task.key.encode())):
        raise TaskNotFound("this host holds nothing of the task")
    if request.headers.get(VERSION_HEADER, meta.version) != meta.version:
        raise VersionGone("this host holds another version of the task")
    return meta.version


class VersionGone(TaskNotFound):
    """Another version is held (409)."""

    status = 409


def _not_held(error: PieceMissing) -> Response:
    return Response.json({"error": {"message": str(error), "status": 404}}, 404)


def _task_id(text: str) -> str:
    if not _TASK_ID.fullmatch(text):
        raise InvalidRequest("a task id is 64 hexadecimal digits")
    return text


def _piece_number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 8 or int(text) >= MAX_PIECES:
        raise InvalidRequest("a piece number is a small whole number")
    return int(text)
