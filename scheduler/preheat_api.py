"""Preheats over HTTP, for ``dragonet preheat`` and other programs. JSON.

===========================  ===========================================================
``POST /v1/preheats``        PreheatAsked -> 201 and the preheat
``GET /v1/preheats``         ``{"preheats": […]}``, the latest first
``GET /v1/preheats/{id}``    the preheat with its contents, its hosts, and what failed
``DELETE /v1/preheats/{id}`` no more is done for it; what was brought stays
===========================  ===========================================================

Where ``scheduler.preheat_token`` is set, all of them want it (``Authorization: Bearer TOKEN``).
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import msgspec
import trio

from scheduler.errors import TokenUnset, TokenWanted, UnknownPreheat
from scheduler.preheat_orders import PreheatAsked, order_of
from scheduler.preheat_views import job_detail, job_view
from scheduler.preheats import Job, PreheatOrder
from scheduler.state import ClusterState
from shared.errors import InvalidRequest
from shared.http.messages import Handler, Request, Response, error_response
from shared.http.router import Router

T = TypeVar("T")

MAX_BODY = 256 * 1024


class Preheater(Protocol):
    """What the routes need; see :class:`scheduler.service.SchedulerService`."""

    @property
    def state(self) -> ClusterState: ...
    def preheat(self, order: PreheatOrder) -> Job: ...
    def cancel_preheat(self, job: Job) -> None: ...


class Doorkeeper:
    """Lets requests through that show the token."""

    def __init__(self, token: str) -> None:
        self._token = token

    def guard(self, handler: Handler, *, always: bool) -> Handler:
        """The handler behind the token; without a token set, for nobody (``always``), or for everybody."""

        async def guarded(request: Request) -> Response:
            try:
                self.check(request, always=always)
            except TokenWanted as error:
                refusal = error_response(error)
                refusal.headers.append(("www-authenticate", 'Bearer realm="dragonet"'))
                return refusal
            return await handler(request)

        return guarded

    def check(self, request: Request, *, always: bool) -> None:
        """Raises TokenWanted, TokenUnset."""
        if not self._token:
            if always:
                raise TokenUnset(
                    "this API is closed until scheduler.preheat_token is set at the scheduler: then show the token"
                )
            return
        shown = _shown(request.headers.get("authorization", ""))
        if not hmac.compare_digest(shown.encode(), self._token.encode()):
            raise TokenWanted(
                "preheats want the token of scheduler.preheat_token, as 'Authorization: Bearer TOKEN' "
                "(dragonet preheat: --token, or DRAGONET_SCHEDULER_PREHEAT_TOKEN)"
            )


def _shown(authorization: str) -> str:
    """The token of a Bearer field, or the password of a Basic one."""
    scheme, _, rest = authorization.strip().partition(" ")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).decode("utf-8", "replace").partition(":")[2]
        except binascii.Error:
            return ""
    return rest.strip() if scheme.lower() == "bearer" else ""


class PreheatApi:
    """The handlers."""

    def __init__(self, preheater: Preheater, doorkeeper: Doorkeeper) -> None:
        self._preheater = preheater
        self._doorkeeper = doorkeeper

    def add_routes(self, router: Router) -> None:
        """Mount them."""
        routes: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
            ("POST", "/v1/preheats", self.begin),
            ("GET", "/v1/preheats", self.listing),
            ("GET", "/v1/preheats/{id}", self.show),
            ("DELETE", "/v1/preheats/{id}", self.cancel),
        ]
        for method, path, handler in routes:
            router.add(method, path, self._doorkeeper.guard(handler, always=False))

    async def begin(self, request: Request) -> Response:
        """``POST /v1/preheats``. Raises InvalidRequest, TooManyPreheats."""
        asked = decode_json(await request.body(MAX_BODY), PreheatAsked)
        order = await trio.to_thread.run_sync(order_of, asked)
        job = self._preheater.preheat(order)
        return Response.json(self._view(job), 201, [("location", f"/v1/preheats/{job.id}")])

    async def listing(self, request: Request) -> Response:
        """``GET /v1/preheats``."""
        jobs = self._preheater.state.cluster.preheats
        return Response.json({"preheats": [self._view(job) for job in jobs]})

    async def show(self, request: Request) -> Response:
        """``GET /v1/preheats/{id}``. Raises UnknownPreheat."""
        job = find_job(self._preheater, request.params["id"])
        return Response.json(job_detail(self._preheater.state.cluster, job, trio.current_time()))

    async def cancel(self, request: Request) -> Response:
        """``DELETE /v1/preheats/{id}``; harmless when it is over. Raises UnknownPreheat."""
        job = find_job(self._preheater, request.params["id"])
        self._preheater.cancel_preheat(job)
        return Response.json(self._view(job))

    def _view(self, job: Job) -> dict[str, object]:
        return job_view(self._preheater.state.cluster, job, trio.current_time())


def find_job(preheater: Preheater, text: str) -> Job:
    """The job of an id. Raises UnknownPreheat."""
    job = preheater.state.cluster.preheats.get(int(text)) if text.isdecimal() and len(text) < 20 else None
    if job is None:
        raise UnknownPreheat(
            "the scheduler knows no preheat of this id: it forgets old ones, and all of them when it is restarted "
            "(what was brought stays where it is)"
        )
    return job


def decode_json(body: bytes, kind: type[T]) -> T:
    """A message from outside. Raises InvalidRequest, in words that repeat no value."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise InvalidRequest(f"the body is not a valid preheat: {error}") from None
    except RecursionError:
        raise InvalidRequest("the body is not a valid preheat: it is nested too deeply") from None
