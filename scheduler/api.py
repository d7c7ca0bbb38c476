"""The scheduler's HTTP routes: messages in and out, handed to :class:`scheduler.service.SchedulerService`.

Bodies are MessagePack, or JSON where ``Content-Type`` (of a request) or ``Accept`` (for the answer) says
``application/json``; an assignment stream in JSON has one message in a line. Listings are JSON.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol, TypeVar

import msgspec

from scheduler.checks import check_lease
from scheduler.errors import UnknownHost
from scheduler.hub import Subscription
from scheduler.state import ClusterState
from scheduler.views import host_views, listed_task, task_detail
from shared.errors import InvalidRequest, TaskNotFound
from shared.http.messages import Push, Request, Response
from shared.http.router import Router
from shared.protocol import (
    MSGPACK,
    PROTOCOL_VERSION,
    HostLease,
    LeaseGranted,
    Message,
    Reports,
    ReportsTaken,
    Welcome,
    check_version,
    encode,
)

JSON = "application/json"
MAX_LEASE = 64 * 1024
MAX_REPORTS = 32 * 1024 * 1024
"""Bytes of one batch; the digests of a terabyte take two megabytes."""
MAX_LISTED = 10_000
DEFAULT_LISTED = 1000

M = TypeVar("M", HostLease, Reports)


class Scheduler(Protocol):
    """What the routes need; see :class:`scheduler.service.SchedulerService`."""

    name: str

    @property
    def state(self) -> ClusterState: ...
    def renew(self, lease: HostLease, source: str = "") -> LeaseGranted: ...
    def leave(self, host: str) -> None: ...
    def report(self, host: str, reports: Reports) -> ReportsTaken: ...
    def subscribe(self, host: str, *, json: bool) -> Subscription: ...
    def unsubscribe(self, subscription: Subscription) -> None: ...


class SchedulerApi:
    """The handlers."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def add_routes(self, router: Router) -> None:
        """Mount the control protocol and the listings."""
        self.add_control_routes(router)
        router.add("GET", "/v1/hosts", self.hosts)
        router.add("GET", "/v1/tasks", self.tasks)
        router.add("GET", "/v1/tasks/{id}", self.task)

    def add_control_routes(self, router: Router) -> None:
        """Mount the control protocol alone: what hosts call."""
        router.add("PUT", "/v1/hosts/{host}", self.renew)
        router.add("DELETE", "/v1/hosts/{host}", self.leave)
        router.add("GET", "/v1/hosts/{host}/assignments", self.assignments)
        router.add("POST", "/v1/hosts/{host}/reports", self.report)

    # --- control protocol ----------------------------------------------------------------------------

    async def renew(self, request: Request) -> Response:
        """``PUT /v1/hosts/{host}``: HostLease -> LeaseGranted. Raises TooManyHosts, SameHost."""
        lease = _decode(await request.body(MAX_LEASE), request, HostLease)
        check_version(lease.version)
        lease = _with_address(lease, request.peer)
        check_lease(lease, request.params["host"])
        return _answer(self._scheduler.renew(lease, _ip(request.peer)), request)

    async def leave(self, request: Request) -> Response:
        """``DELETE /v1/hosts/{host}``: the lease is given up; harmless when there is none.

        With ``?instance=`` only that of this process, not of another one that has its name.
        """
        host, instance = request.params["host"], request.query.get("instance")
        if self._scheduler.state.knows(host, instance):
            self._scheduler.leave(host)
        return Response(204)

    async def report(self, request: Request) -> Response:
        """``POST /v1/hosts/{host}/reports``: Reports -> ReportsTaken."""
        reports = _decode(await request.body(MAX_REPORTS), request, Reports)
        check_version(reports.version)
        return _answer(self._scheduler.report(request.params["host"], reports), request)

    async def assignments(self, request: Request) -> Response:
        """``GET /v1/hosts/{host}/assignments``: a stream of Assignment messages, until either side ends it.

        ``?instance=`` refuses a process whose name another one has taken since. Raises UnknownHost.
        """
        host = request.params["host"]
        if not self._scheduler.state.knows(host, request.query.get("instance")):
            raise UnknownHost("this host has no lease here: renew it, then ask for assignments")
        json = _wants_json(request)
        content_type = "application/x-ndjson" if json else MSGPACK
        if request.method == "HEAD":
            return Response(200, content_type=content_type)
        subscription = self._scheduler.subscribe(host, json=json)
        return Response(
            200,
            _Messages(subscription, self._scheduler.name),
            [("cache-control", "no-store")],
            content_type,
            release=lambda: self._scheduler.unsubscribe(subscription),
            endless=True,
        )

    # --- listings ------------------------------------------------------------------------------------

    async def hosts(self, request: Request) -> Response:
        """``GET /v1/hosts``."""
        return Response.json({"hosts": host_views(self._scheduler.state.cluster)})

    async def tasks(self, request: Request) -> Response:
        """``GET /v1/tasks?limit=N``: the tasks that something happened to last come first."""
        limit = _limit(request)
        tasks = self._scheduler.state.cluster.tasks
        shown: list[dict[str, Any]] = []
        for task in reversed(tasks.values()):
            if len(shown) == limit:
                break
            shown.append(listed_task(task))
        return Response.json({"tasks": shown, "total": len(tasks)})

    async def task(self, request: Request) -> Response:
        """``GET /v1/tasks/{id}``. Raises TaskNotFound."""
        task = self._scheduler.state.cluster.tasks.get(request.params["id"])
        if task is None:
            raise TaskNotFound("the scheduler knows no task of this id: see /v1/tasks")
        return Response.json(task_detail(task))


class _Messages:
    """The body of an assignment stream: welcome, then decisions as they come; and signs of life (``beats``)."""

    def __init__(self, subscription: Subscription, name: str) -> None:
        self._subscription = subscription
        self._push: Push | None = None
        self._first: bytes | None = subscription.encoder(Welcome(name))

    def attach(self, push: Push | None) -> None:
        self._push = push
        if push is None:
            self._subscription.attach(None)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        self._subscription.attach(self._push)
        data = await self._subscription.take()
        if data is None:
            raise StopAsyncIteration
        return data


class _Versioned(msgspec.Struct):
    version: int = PROTOCOL_VERSION


def _decode(body: bytes, request: Request, kind: type[M]) -> M:
    """A message from outside. Raises InvalidRequest, in words; another version's message says so first."""
    decode = (
        msgspec.json.decode if _is_json(request.headers.get("content-type", "")) else msgspec.msgpack.decode
    )
    try:
        return decode(body, type=kind)
    except msgspec.MsgspecError as error:
        reason = str(error)
    except RecursionError:
        reason = "it is nested too deeply"
    try:
        version = decode(body, type=_Versioned).version
    except (msgspec.MsgspecError, RecursionError):
        version = PROTOCOL_VERSION
    check_version(version)
    raise InvalidRequest(f"the body is not a valid {kind.__name__}: {reason}")


def _answer(message: Message, request: Request) -> Response:
    return Response.json(message) if _wants_json(request) else Response.msgpack(encode(message))


def _wants_json(request: Request) -> bool:
    return any(_is_json(member) for member in request.headers.get_list("accept"))


def _is_json(media_type: str) -> bool:
    return media_type.partition(";")[0].strip().lower() == JSON


def _with_address(lease: HostLease, client: str) -> HostLease:
    """A host that names a wildcard address is reached where its request came from."""
    host, _, port = lease.address.rpartition(":")
    source = _ip(client)
    if host not in ("", "0.0.0.0", "*", "[::]") or not source:
        return lease
    shown = f"[{source}]" if ":" in source else source
    return msgspec.structs.replace(lease, address=f"{shown}:{port}")


def _ip(client: str) -> str:
    """The IP address of "IP:PORT", "" where there is none; IPv4 is IPv4, however the listener saw it."""
    ip = client.rpartition(":")[0].strip("[]")
    return ip.removeprefix("::ffff:") if "." in ip else ip


def _limit(request: Request) -> int:
    text = request.query.get("limit", str(DEFAULT_LISTED))
    if not text.isdecimal() or len(text) > 9:
        raise InvalidRequest(f"limit must be a whole number up to {MAX_LISTED}")
    return min(int(text), MAX_LISTED)
